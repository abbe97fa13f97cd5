-- What lies between the client and its session: a pooler in transaction mode runs each transaction
-- in any of its sessions, and renames prepared statements if it can carry them over.
--
-- Parameters: none
-- Columns:
--   pid          int4  process ID of the session that runs this transaction
--   is_renamed   bool  whether this prepared statement has another name than the client gave it
--   is_embedded  bool  whether this is the embedded engine, which has one session for all clients

select
    pg_backend_pid() as pid,
    exists (
        select
        from pg_prepared_statements
        where statement like '-- What lies between the client%' and name !~ '^s[0-9]+$'
    ) as is_renamed,
    version() like '%(Emscripten %' as is_embedded
