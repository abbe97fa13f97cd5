-- One page of the SIM cards with usage in an interval, with the totals of the whole list.
--
-- Parameters:
--   $1  integer[]    the organizations that may be seen, by their keys; null for all
--   $2  text         only what was used on behalf of this organization; null for all
--   $3  timestamptz  start of the interval
--   $4  timestamptz  first whole hour
--   $5  timestamptz  first whole day
--   $6  timestamptz  end of the last whole day
--   $7  timestamptz  end of the last whole hour
--   $8  timestamptz  end of the interval
--   $9  integer      order: 1 fewest bytes first, -1 most bytes first, 0 by identifier; equals by identifier
--   $10 bigint       only rows behind this place in the order: $9 times its bytes; null for all
--   $11 text         and this identifier
--   $12 bigint       rows of the page; null for all
--   $13 bigint       rows before the page
--
-- Columns:
--   total              bigint       SIM cards of the whole list
--   all_bytes          bigint       bytes of the whole list; an error (22003) where they exceed bigint
--   version            bigint       as usage_freshness has it, like the next four
--   inventory_version  bigint
--   stale_from         timestamptz
--   complete_through   timestamptz
--   last_ingested_at   timestamptz
--   id                 text         the SIM card's ICCID; null where the page has no row
--   bytes              bigint       bytes of the SIM card
--   records            bigint       records of the SIM card
--
-- No row: there is no such organization, or it may not be seen. One row with a null id: the page is empty.
-- A comparison of two parameters alone is decided before anything is scanned, so a part of the
-- interval that is empty costs nothing; so is the test whether there is a filter.

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
