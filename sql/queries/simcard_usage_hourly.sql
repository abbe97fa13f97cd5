-- One page of the time series of a SIM card by the hour, with the totals of the whole interval.
--
-- Parameters:
--   $1 text         the SIM card's ICCID
--   $2 timestamptz  start of the interval
--   $3 timestamptz  first whole hour
--   $4 timestamptz  end of the last whole hour
--   $5 timestamptz  end of the interval
--   $6 bigint       rows of a page
--   $7 bigint       rows before the page
--
-- Columns:
--   total       bigint       buckets of the whole series
--   all_bytes   bigint       bytes of the whole interval; an error (22003) where they exceed bigint
--   bucket      timestamptz  start of the bucket; null where the page has no row
--   bytes       bigint       bytes of the bucket
--   records     bigint       records of the bucket
--
-- No row: there is no such SIM card. One row with a null bucket: the page is empty.
-- A comparison of two parameters alone is decided before anything is scanned, so a part of the
-- interval that is empty costs nothing.

with sim_card as (
    select id from sim_cards where iccid = $1
),
parts as (
    select date_trunc('hour', time, 'UTC') as bucket, bytes::numeric, 1 as records
    from usage_records
    where sim_card_id = (select id from sim_card) and time >= $2 and time < $3 and $2 < $3
    union all
    select bucket, bytes, records
    from usage_hourly
    where sim_card_id = (select id from sim_card) and bucket >= $3 and bucket < $4 and $3 < $4
    union all
    select date_trunc('hour', time, 'UTC'), bytes, 1
    from usage_records
    where sim_card_id = (select id from sim_card) and time >= $4 and time < $5 and $4 < $5
),
series as (
    select bucket, sum(bytes) as bytes, sum(records)::bigint as records
    from parts
    group by bucket
),
totals as (
    select count(*) as total, coalesce(sum(bytes), 0)::bigint as all_bytes from series
),
page as (
    select bucket, bytes::bigint as bytes, records from series order by bucket limit $6 offset $7
)
select totals.total, totals.all_bytes, page.bucket, page.bytes, page.records
from sim_card
cross join totals
left join page on true
order by page.bucket;
