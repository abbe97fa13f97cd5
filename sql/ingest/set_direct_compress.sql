-- Has COPY write straight into the columnstore for the rest of the session, or not, where the server knows how to.
-- That the client's records come sorted is never claimed: it would be wrong where several write at once.
--
-- Parameters:
--   $1 text  on or off
--
-- Columns; no row where the server does not know how to:
--   set_config  text

select set_config(name, $1, false) from pg_settings where name = 'timescaledb.enable_direct_compress_copy'
