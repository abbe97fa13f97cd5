-- One page of the SIM cards with usage in an interval, with the totals of all pages.
--
-- Parameters:
--   $1  integer[]    ids of the organizations that the caller may see; null for all
--   $2  text         only usage of this organization; null for all
--   $3  timestamptz  start of the interval
--   $4  timestamptz  first whole hour
--   $5  timestamptz  first whole day
--   $6  timestamptz  end of the last whole day
--   $7  timestamptz  end of the last whole hour
--   $8  timestamptz  end of the interval
--   $9  integer      order: 1 by bytes, -1 by bytes descending, 0 by id; ties are ordered by id
--   $10 bigint       only rows after this sort key ($9 * bytes); null for all
--   $11 text         and after this id, among rows with that sort key
--   $12 bigint       maximum number of rows; null for all
--   $13 bigint       number of rows to skip
--
-- Columns:
--   total              bigint       number of SIM cards on all pages
--   all_bytes          bigint       bytes on all pages; error 22003 if they exceed bigint
--   version            bigint       this and the next four: see sql/functions/usage_freshness.sql
--   inventory_version  bigint
--   stale_from         timestamptz
--   complete_through   timestamptz
--   last_ingested_at   timestamptz
--   id                 text         the SIM card's ICCID; null if the page is empty
--   bytes              bigint
--   records            bigint
--
-- No row: the organization does not exist, or the caller may not see it. An empty page is one row
-- with a null id.
--
-- PostgreSQL evaluates conditions on parameters alone before it scans anything, so an empty part of
-- the interval, or a filter that is not set, costs nothing.

with organization as (
    select id from organizations where name = $2 and ($1::integer[] is null or id = any($1))
),
parts as (
    select sim_card_id, bytes::numeric, 1 as records
    from usage_records
    where time >= $3 and time < $4 and $3 < $4
        and ($1::integer[] is null or organization_id = any($1))
        and ($2::text is null or organization_id = (select id from organization))
    union all
    select sim_card_id, bytes, records
    from usage_hourly
    where bucket >= $4 and bucket < $5 and $4 < $5
        and ($1::integer[] is null or organization_id = any($1))
        and ($2::text is null or organization_id = (select id from organization))
    union all
    select sim_card_id, bytes, records
    from usage_daily
    where bucket >= $5 and bucket < $6 and $5 < $6
        and ($1::integer[] is null or organization_id = any($1))
        and ($2::text is null or organization_id = (select id from organization))
    union all
    select sim_card_id, bytes, records
    from usage_hourly
    where bucket >= $6 and bucket < $7 and $6 < $7
        and ($1::integer[] is null or organization_id = any($1))
        and ($2::text is null or organization_id = (select id from organization))
    union all
    select sim_card_id, bytes, 1
    from usage_records
    where time >= $7 and time < $8 and $7 < $8
        and ($1::integer[] is null or organization_id = any($1))
        and ($2::text is null or organization_id = (select id from organization))
),
usage as (
    select sim_card_id, sum(bytes) as bytes, sum(records)::bigint as records
    from parts
    group by sim_card_id
),
totals as (
    select count(*) as total, coalesce(sum(bytes), 0)::bigint as all_bytes from usage
),
ordered as (
    select $9::integer * usage.bytes as place, sim_cards.iccid as id, usage.bytes, usage.records
    from usage
    join sim_cards on sim_cards.id = usage.sim_card_id
),
page as (
    select place, id, bytes::bigint as bytes, records
    from ordered
    where $10::bigint is null or (place, id) > ($10::bigint::numeric, $11::text)
    order by place, id
    limit $12 offset $13
)
select totals.total, totals.all_bytes, freshness.*, page.id, page.bytes, page.records
from totals
cross join usage_freshness($3, $8) as freshness
left join page on true
where $2 is null or exists (select from organization)
order by page.place, page.id
