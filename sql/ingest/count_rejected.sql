-- Counts how many of the given rejected records still exist. Waits for a transaction that is
-- deleting them.
--
-- Parameters:
--   $1 bigint[]  ids of rejected records
-- Columns:
--   count  bigint

with present as (
    select from rejected_records where id = any($1::bigint[]) for update
)
select count(*) as count from present
