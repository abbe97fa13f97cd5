-- One page of the SIM cards with usage in an interval, most bytes first, with the totals of the whole list.
--
-- Parameters:
--   $1 text         only what was used on behalf of this organization; null for all
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
--   total       bigint  SIM cards of the whole list
--   all_bytes   bigint  bytes of the whole list; an error (22003) where they exceed bigint
--   id          text    the SIM card's ICCID; null where the page has no row
--   bytes       bigint  bytes of the SIM card
--   records     bigint  records of the SIM card
--
-- No row: there is no such organization. One row with a null id: the page is empty.
-- A comparison of two parameters alone is decided before anything is scanned, so a part of the
-- interval that is empty costs nothing; so is the test whether there is a filter.

with organization as (
    select id from organizations where name = $1
),
parts as (
    select sim_card_id, bytes::numeric, 1 as records
    from usage_records
    where time >= $2 and time < $3 and $2 < $3
        and ($1 is null or organization_id = (select id from organization))
    union all
    select sim_card_id, bytes, records
    from usage_hourly
    where bucket >= $3 and bucket < $4 and $3 < $4
        and ($1 is null or organization_id = (select id from organization))
    union all
    select sim_card_id, bytes, records
    from usage_daily
    where bucket >= $4 and bucket < $5 and $4 < $5
        and ($1 is null or organization_id = (select id from organization))
    union all
    select sim_card_id, bytes, records
    from usage_hourly
    where bucket >= $5 and bucket < $6 and $5 < $6
        and ($1 is null or organization_id = (select id from organization))
    union all
    select sim_card_id, bytes, 1
    from usage_records
    where time >= $6 and time < $7 and $6 < $7
        and ($1 is null or organization_id = (select id from organization))
),
usage as (
    select sim_card_id, sum(bytes) as bytes, sum(records)::bigint as records
    from parts
    group by sim_card_id
),
totals as (
    select count(*) as total, coalesce(sum(bytes), 0)::bigint as all_bytes from usage
),
page as (
    select sim_cards.iccid as id, usage.bytes::bigint as bytes, usage.records
    from usage
    join sim_cards on sim_cards.id = usage.sim_card_id
    order by usage.bytes desc, sim_cards.iccid
    limit $8 offset $9
)
select totals.total, totals.all_bytes, page.id, page.bytes, page.records
from totals
left join page on true
where $1 is null or exists (select from organization)
order by page.bytes desc, page.id;
