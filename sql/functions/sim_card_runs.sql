-- The ranges of closed postings that have records of some days, each within adjacent spans, with the
-- aggregate that has them by SIM card and day.
--
-- Parameters:
--   first_day  date
--   last_day   date    inclusive
--   boundary   bigint  the mark of sim_card_usage
-- Columns:
--   run_start     bigint
--   run_end       bigint  exclusive
--   aggregate     text    sim_card_usage_merged or sim_card_usage
--   start_column  text    its column with the first posting: span or period

create or replace function sim_card_runs(first_day date, last_day date, boundary bigint)
returns table (run_start bigint, run_end bigint, aggregate text, start_column text)
language sql
stable
as $$
    select
        case when is_merged then min(span) << 45 else min(first_period) << 40 end,
        least(case when is_merged then (max(span) + 1) << 45 else (max(last_period) + 1) << 40 end, boundary),
        case when is_merged then 'sim_card_usage_merged' else 'sim_card_usage' end,
        case when is_merged then 'span' else 'period' end
    from (
        select
            span, first_period, last_period, is_merged,
            span - row_number() over (partition by is_merged order by span) as island
        from (
            select posting >> 45 as span, min(posting) >> 40 as first_period, max(posting) >> 40 as last_period
            from posting_days
            where day between first_day and last_day and posting < boundary
            group by 1
        ) as spans
        cross join lateral (
            select exists (
                select from sim_card_spans where sim_card_spans.span = spans.span << 45 and sim_card_spans.is_merged
            )
        ) as merging (is_merged)
    ) as islands
    group by is_merged, island
$$
