-- One page of the organizations with usage in an interval, with the totals of the whole list.
--
-- Parameters:
--   $1  integer[]    the organizations that may be seen, by their keys; null for all
--   $2  timestamptz  start of the interval
--   $3  timestamptz  first whole hour
--   $4  timestamptz  first whole day
--   $5  timestamptz  end of the last whole day
--   $6  timestamptz  end of the last whole hour
--   $7  timestamptz  end of the interval
--   $8  integer      order: 1 fewest bytes first, -1 most bytes first, 0 by identifier; equals by identifier
--   $9  bigint       only rows behind this place in the order: $8 times its bytes; null for all
--   $10 text         and this identifier
--   $11 bigint       rows of the page; null for all
--   $12 bigint       rows before the page
--
-- Columns:
--   total              bigint       organizations of the whole list
--   all_bytes          bigint       bytes of the whole list; an error (22003) where they exceed bigint
--   version            bigint       as usage_freshness has it, like the next four
--   inventory_version  bigint
--   stale_from         timestamptz
--   complete_through   timestamptz
--   last_ingested_at   timestamptz
--   id                 text         the organization's name; null where the page has no row
--   bytes              bigint       bytes of the organization
--   records            bigint       records of the organization
--
-- Always a row. One row with a null id: the page is empty.
-- A comparison of two parameters alone is decided before anything is scanned, so a part of the
-- interval that is empty costs nothing; so is the test whether there is a filter.

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
