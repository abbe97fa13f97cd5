-- Deletes hours that have been refreshed, and gives their days a new version.
--
-- Deletes only rows that were read before the refresh: the refresh may have missed the records of
-- rows added later. Days are updated in order, so that concurrent refreshes do not deadlock.
--
-- Parameters:
--   $1 bigint[]  ids of stale hours

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
