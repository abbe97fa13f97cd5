-- One page of the time series of a SIM card, where what is read comes in pieces,
-- because edges of buckets cut into days or hours.
--
-- Parameters:
--   $1  text           the SIM card's ICCID
--   $2  integer[]      the organizations that may be seen, by their keys; null for all
--   $3  timestamptz[]  starts of the pieces read from records
--   $4  timestamptz[]  their ends
--   $5  timestamptz[]  starts of the pieces read from the hourly aggregate
--   $6  timestamptz[]  their ends
--   $7  timestamptz[]  starts of the pieces read from the daily aggregate
--   $8  timestamptz[]  their ends
--   $9  timestamptz[]  starts of the buckets, ascending; the first not after what is read
--   $10 integer        only buckets behind this one
--   $11 integer        and up to this one
--   $12 bigint         rows of the page; null for all
--   $13 bigint         rows before the page
--   $14 timestamptz    start of the interval whose freshness is told
--   $15 timestamptz    end of it
--
-- Columns:
--   total              bigint       buckets of what is read
--   all_bytes          bigint       bytes of what is read; an error (22003) where they exceed bigint
--   version            bigint       as usage_freshness has it, like the next four
--   inventory_version  bigint
--   stale_from         timestamptz
--   complete_through   timestamptz
--   last_ingested_at   timestamptz
--   number             integer      the bucket, counted from 1; null where the page has no row
--   bytes              bigint       bytes of the bucket
--   records            bigint       records of the bucket
--
-- No row: there is no such SIM card, or it may not be seen. One row with a null number: the page is empty.

with sim_card as (
    select id
    from sim_cards
    where iccid = $1
        and (
            $2::integer[] is null
            or exists (
                select from sim_card_assignments where sim_card_id = sim_cards.id and organization_id = any($2)
            )
        )
),
parts as (
    select piece.*
    from sim_card
    cross join lateral usage_in_pieces('usage_records', sim_card.id, $2, $3, $4) as piece
    union all
    select piece.*
    from sim_card
    cross join lateral usage_in_pieces('usage_hourly', sim_card.id, $2, $5, $6) as piece
    union all
    select piece.*
    from sim_card
    cross join lateral usage_in_pieces('usage_daily', sim_card.id, $2, $7, $8) as piece
),
series as (
    select width_bucket(instant, $9::timestamptz[]) as number, sum(bytes) as bytes, sum(records)::bigint as records
    from parts
    group by 1
),
totals as (
    select count(*) as total, coalesce(sum(bytes), 0)::bigint as all_bytes from series
),
page as (
    select number, bytes::bigint as bytes, records
    from series
    where number > $10 and number <= $11
    order by number
    limit $12 offset $13
)
select totals.total, totals.all_bytes, freshness.*, page.number, page.bytes, page.records
from sim_card
cross join totals
cross join usage_freshness($14, $15) as freshness
left join page on true
order by page.number
