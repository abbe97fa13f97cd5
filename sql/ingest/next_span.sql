-- The first span of closed periods of which has not been decided whether to merge it.
--
-- Parameters: none
-- Columns; no row if there is none:
--   span       bigint   its first posting
--   is_spread  boolean  whether the records of a day are in two periods or more, on average
--
-- The average weights each day by its records, and each period by its share of the day. A load that is
-- in the order of time has each day in one period or two, and merging would only copy it.

with register as (
    select
        (select coalesce(max(span) + 35184372088832, 0) from sim_card_spans) as span_start,
        (select closed_before >> 45 << 45 from usage_levels where level = 'sim_card_usage') as span_end
),
days as (
    select
        posting >> 45 as span,
        sum(records) as records,
        sum(records) * sum(records) / sum(records::numeric * records) as periods
    from register
    join posting_days on posting >= span_start and posting < span_end
    where records > 0
    group by posting >> 45, day
)
select span << 45 as span, sum(records * periods) >= 2 * sum(records) as is_spread
from days
group by days.span
order by days.span
limit 1
