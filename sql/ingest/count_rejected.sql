-- How many of some rejected records there are still. Waits for a transaction that is about to delete them.
--
-- Parameters:
--   $1 bigint[]  records
-- Columns:
--   count  bigint

with present as (
    select from rejected_records where id = any($1::bigint[]) for update
)
select count(*) as count from present
