-- Forgets hours that have been refreshed: those rows that were read before, because one that was added meanwhile
-- may have come too late for the refresh. Their days get a new version, in an order that two of these agree on.
--
-- Parameters:
--   $1 bigint[]  rows

with refreshed as (
    delete from stale_hours where id = any($1::bigint[]) returning start_at, end_at
),
days as (
    select distinct generate_series(date_trunc('day', start_at, 'UTC'), end_at - interval '1 us', interval '1 day') as day
    from refreshed
)
insert into usage_versions (day, version)
select day, nextval('usage_version') from (select day from days order by day) as ordered
on conflict (day) do update set version = excluded.version
