-- Whether a batch before a boundary may still commit.
--
-- Parameters:
--   boundary  bigint  the first posting of a page
-- Columns:
--   is_posting_open  boolean

create or replace function is_posting_open(boundary bigint) returns boolean
language sql
volatile
as $$
    select exists (
        select
        from pg_locks
        where locktype = 'advisory'
            and database = (select oid from pg_database where datname = current_database())
            and objsubid = 1
            and (classid::bigint << 32 | objid::bigint) >= 4611686018427387904
            and (classid::bigint << 32 | objid::bigint) - 4611686018427387904 < boundary >> 20
    )
$$
