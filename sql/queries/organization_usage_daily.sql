-- One page of the time series of an organization by the UTC day, with the totals of the whole interval.
--
-- Parameters:
--   $1 text         the organization's name
--   $2 timestamptz  start of the interval
--   $3 timestamptz  first whole hour
--   $4 timestamptz  first whole day
--   $5 timestamptz  end of the last whole day
--   $6 timestamptz  end of the last whole hour
--   $7 timestamptz  end of the interval
--   $8 bigint       rows of a page
--   $9 bigint       rows before the page
--
-- Columns:
--   total       bigint       buckets of the whole series
--   all_bytes   bigint       bytes of the whole interval; an error (22003) where they exceed bigint
--   bucket      timestamptz  start of the bucket; null where the page has no row
--   bytes       bigint       bytes of the bucket
--   records     bigint       records of the bucket
--
-- No row: there is no such organization. One row with a null bucket: the page is empty.
-- A comparison of two parameters alone is decided before anything is scanned, so a part of the
-- interval that is empty costs nothing.

with organization as (
    select id from organizations where name = $1
),
parts as (
    select time as instant, bytes::numeric, 1 as records
    from usage_records
    where organization_id = (select id from organization) and time >= $2 and time < $3 and $2 < $3
    union all
    select bucket, bytes, records
    from organization_usage_hourly
    where organization_id = (select id from organization) and bucket >= $3 and bucket < $4 and $3 < $4
    union all
    select bucket, bytes, records
    from organization_usage_daily
    where organization_id = (select id from organization) and bucket >= $4 and bucket < $5 and $4 < $5
    union all
    select bucket, bytes, records
    from organization_usage_hourly
    where organization_id = (select id from organization) and bucket >= $5 and bucket < $6 and $5 < $6
    union all
    select time, bytes, 1
    from usage_records
    where organization_id = (select id from organization) and time >= $6 and time < $7 and $6 < $7
),
series as (
    select date_trunc('day', instant, 'UTC') as bucket, sum(bytes) as bytes, sum(records)::bigint as records
    from parts
    group by 1
),
totals as (
    select count(*) as total, coalesce(sum(bytes), 0)::bigint as all_bytes from series
),
page as (
    select bucket, bytes::bigint as bytes, records from series order by bucket limit $8 offset $9
)
select totals.total, totals.all_bytes, page.bucket, page.bytes, page.records
from organization
cross join totals
left join page on true
order by page.bucket;
