-- One page of the time series of a SIM card, where what is read comes in pieces,
-- because edges of buckets cut into days or hours.
--
-- Parameters:
--   $1  text           the SIM card's ICCID
--   $2  integer[]      the organizations that may be seen, by their keys; null for all
--   $3  timestamptz    start of the first piece read from records
--   $4  timestamptz    end of the last one; the same where there is none
--   $5  timestamptz[]  their starts
--   $6  timestamptz[]  their ends
--   $7  timestamptz    start of the first piece read from the hourly aggregate
--   $8  timestamptz    end of the last one; the same where there is none
--   $9  timestamptz[]  their starts
--   $10 timestamptz[]  their ends
--   $11 timestamptz    start of the first piece read from the daily aggregate
--   $12 timestamptz    end of the last one; the same where there is none
--   $13 timestamptz[]  their starts
--   $14 timestamptz[]  their ends
--   $15 timestamptz[]  starts of the buckets, ascending; the first not after what is read
--   $16 integer        only buckets behind this one
--   $17 integer        and up to this one
--   $18 bigint         rows of the page; null for all
--   $19 bigint         rows before the page
--   $20 timestamptz    start of the interval whose freshness is told
--   $21 timestamptz    end of it
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
-- The planner leaves out chunks by the two instants of a kind alone; it sees no use in the pieces. A condition that
-- is never true would hide those instants from it, so there is none for a kind without a piece.

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
    select usage_records.time as instant, usage_records.bytes::numeric, 1 as records
    from unnest($5::timestamptz[], $6::timestamptz[]) as piece (start_at, end_at)
    join usage_records
        on usage_records.time >= piece.start_at
        and usage_records.time < piece.end_at
    where sim_card_id = (select id from sim_card) and ($2 is null or organization_id = any($2))
        and usage_records.time >= $3 and usage_records.time < $4
    union all
    select usage_hourly.bucket, usage_hourly.bytes, usage_hourly.records
    from unnest($9::timestamptz[], $10::timestamptz[]) as piece (start_at, end_at)
    join usage_hourly
        on usage_hourly.bucket >= piece.start_at
        and usage_hourly.bucket < piece.end_at
    where sim_card_id = (select id from sim_card) and ($2 is null or organization_id = any($2))
        and usage_hourly.bucket >= $7 and usage_hourly.bucket < $8
    union all
    select usage_daily.bucket, usage_daily.bytes, usage_daily.records
    from unnest($13::timestamptz[], $14::timestamptz[]) as piece (start_at, end_at)
    join usage_daily
        on usage_daily.bucket >= piece.start_at
        and usage_daily.bucket < piece.end_at
    where sim_card_id = (select id from sim_card) and ($2 is null or organization_id = any($2))
        and usage_daily.bucket >= $11 and usage_daily.bucket < $12
),
series as (
    select width_bucket(instant, $15::timestamptz[]) as number, sum(bytes) as bytes, sum(records)::bigint as records
    from parts
    group by 1
),
totals as (
    select count(*) as total, coalesce(sum(bytes), 0)::bigint as all_bytes from series
),
page as (
    select number, bytes::bigint as bytes, records
    from series
    where number > $16 and number <= $17
    order by number
    limit $18 offset $19
)
select totals.total, totals.all_bytes, freshness.*, page.number, page.bytes, page.records
from sim_card
cross join totals
cross join usage_freshness($20, $21) as freshness
left join page on true
order by page.number
