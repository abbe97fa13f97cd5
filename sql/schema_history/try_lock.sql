-- Takes the lock that lets one migration run at a time, unless another session has it.
--
-- Parameters:
--   $1 bigint  key of the lock
-- Columns:
--   taken  boolean

select pg_try_advisory_lock($1) as taken
