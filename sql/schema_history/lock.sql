-- Waits for the lock that lets one migration run at a time.
--
-- Parameters:
--   $1 bigint  key of the lock
-- Columns: ignored

select pg_advisory_lock($1)
