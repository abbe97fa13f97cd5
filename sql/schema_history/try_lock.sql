-- Takes the lock of the one migration that may run, unless another session has it.
--
-- Parameters:
--   $1 bigint  key
--
-- Columns:
--   taken  boolean

select pg_try_advisory_lock($1) as taken
