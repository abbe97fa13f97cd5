-- One page of the organizations with usage in an interval, with the totals of all pages.
--
-- Parameters:
--   $1  integer[]    ids of the organizations that the caller may see; null for all
--   $2  timestamptz  start of the interval
--   $3  timestamptz  first whole hour
--   $4  timestamptz  first whole day
--   $5  timestamptz  end of the last whole day
--   $6  timestamptz  end of the last whole hour
--   $7  timestamptz  end of the interval
--   $8  integer      order: 1 by bytes, -1 by bytes descending, 0 by id; ties are ordered by id
--   $9  bigint       only rows after this sort key ($8 * bytes); null for all
--   $10 text         and after this id, among rows with that sort key
--   $11 bigint       maximum number of rows; null for all
--   $12 bigint       number of rows to skip
--
-- Columns:
--   total              bigint       number of organizations on all pages
--   all_bytes          bigint       bytes on all pages; error 22003 if they exceed bigint
--   version            bigint       this and the next four: see sql/functions/usage_freshness.sql
--   inventory_version  bigint
--   stale_from         timestamptz
--   complete_through   timestamptz
--   last_ingested_at   timestamptz
--   id                 text         the organization's name; null if the page is empty
--   bytes              bigint
--   records            bigint
--
-- An empty page is one row with a null id.
--
-- PostgreSQL evaluates conditions on parameters alone before it scans anything, so an empty part of
-- the interval, or a filter that is not set, costs nothing.

with parts as (
    select organization_id, bytes::numeric, 1 as records
    from usage_records
    where time >= $2 and time < $3 and $2 < $3
        and ($1::integer[] is null or organization_id = any($1))
    union all
    select organization_id, bytes, records
    from organization_usage_hourly
    where bucket >= $3 and bucket < $4 and $3 < $4
        and ($1::integer[] is null or organization_id = any($1))
    union all
    select organization_id, bytes, records
    from organization_usage_daily
    where bucket >= $4 and bucket < $5 and $4 < $5
        and ($1::integer[] is null or organization_id = any($1))
    union all
    select organization_id, bytes, records
    from organization_usage_hourly
    where bucket >= $5 and bucket < $6 and $5 < $6
        and ($1::integer[] is null or organization_id = any($1))
    union all
    select organization_id, bytes, 1
    from usage_records
    where time >= $6 and time < $7 and $6 < $7
        and ($1::integer[] is null or organization_id = any($1))
),
usage as (
    select organization_id, sum(bytes) as bytes, sum(records)::bigint as records
    from parts
    group by organization_id
),
totals as (
    select count(*) as total, coalesce(sum(bytes), 0)::bigint as all_bytes from usage
),
ordered as (
    select $8::integer * usage.bytes as place, organizations.name as id, usage.bytes, usage.records
    from usage
    join organizations on organizations.id = usage.organization_id
),
page as (
    select place, id, bytes::bigint as bytes, records
    from ordered
    where $9::bigint is null or (place, id) > ($9::bigint::numeric, $10::text)
    order by place, id
    limit $11 offset $12
)
select totals.total, totals.all_bytes, freshness.*, page.id, page.bytes, page.records
from totals
cross join usage_freshness($2, $7) as freshness
left join page on true
order by page.place, page.id
