-- Turns direct writes of COPY to the columnstore on or off for the rest of the session, if the
-- server supports them. Never declares the records as sorted, because several sessions may write at
-- once.
--
-- Parameters:
--   $1 text  on or off
-- Columns; no row if the server does not support it:
--   set_config  text

select set_config(name, $1, false) from pg_settings where name = 'timescaledb.enable_direct_compress_copy'
