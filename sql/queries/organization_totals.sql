-- One page of the organizations with usage in an interval, most bytes first, with the totals of the whole list.
--
-- Parameters:
--   $1 timestamptz  start of the interval
--   $2 timestamptz  first whole hour
--   $3 timestamptz  first whole day
--   $4 timestamptz  end of the last whole day
--   $5 timestamptz  end of the last whole hour
--   $6 timestamptz  end of the interval
--   $7 bigint       rows of a page
--   $8 bigint       rows before the page
--
-- Columns:
--   total       bigint  organizations of the whole list
--   all_bytes   bigint  bytes of the whole list; an error (22003) where they exceed bigint
--   id          text    the organization's name; null where the page has no row
--   bytes       bigint  bytes of the organization
--   records     bigint  records of the organization
--
-- Always a row. One row with a null id: the page is empty.
-- A comparison of two parameters alone is decided before anything is scanned, so a part of the
-- interval that is empty costs nothing.

with parts as (
    select organization_id, bytes::numeric, 1 as records
    from usage_records
    where time >= $1 and time < $2 and $1 < $2
    union all
    select organization_id, bytes, records
    from organization_usage_hourly
    where bucket >= $2 and bucket < $3 and $2 < $3
    union all
    select organization_id, bytes, records
    from organization_usage_daily
    where bucket >= $3 and bucket < $4 and $3 < $4
    union all
    select organization_id, bytes, records
    from organization_usage_hourly
    where bucket >= $4 and bucket < $5 and $4 < $5
    union all
    select organization_id, bytes, 1
    from usage_records
    where time >= $5 and time < $6 and $5 < $6
),
usage as (
    select organization_id, sum(bytes) as bytes, sum(records)::bigint as records
    from parts
    group by organization_id
),
totals as (
    select count(*) as total, coalesce(sum(bytes), 0)::bigint as all_bytes from usage
),
page as (
    select organizations.name as id, usage.bytes::bigint as bytes, usage.records
    from usage
    join organizations on organizations.id = usage.organization_id
    order by usage.bytes desc, organizations.name
    limit $7 offset $8
)
select totals.total, totals.all_bytes, page.id, page.bytes, page.records
from totals
left join page on true
order by page.bytes desc, page.id;
