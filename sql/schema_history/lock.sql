-- Waits for the lock of the one migration that may run.
--
-- Parameters:
--   $1 bigint  key
--
-- Columns: none of interest

select pg_advisory_lock($1)
