-- Deletes some of the oldest rejected records that have reached an age. Returns how many.
--
-- Parameters:
--   $1 bigint  age in days
--   $2 bigint  how many at most
-- Columns:
--   count  bigint

with old as (
    select id
    from rejected_records
    where rejected_at < now() - make_interval(days => $1::bigint::integer)
    order by rejected_at
    limit $2
    for update skip locked
),
deleted as (
    delete from rejected_records
    using old
    where rejected_records.id = old.id
    returning rejected_records.id
)
select count(*) as count
from deleted
