-- The ranges of postings before a boundary that have records of some days, each within adjacent
-- chunks of 64 periods.
--
-- Parameters:
--   first_day  date
--   last_day   date    inclusive
--   boundary   bigint  the first posting of a page
-- Columns:
--   run_start  bigint
--   run_end    bigint  exclusive

create or replace function posting_runs(first_day date, last_day date, boundary bigint)
returns table (run_start bigint, run_end bigint)
language sql
stable
as $$
    select min(first_period) << 40, least((max(last_period) + 1) << 40, boundary)
    from (
        select first_period, last_period, chunk - row_number() over (order by chunk) as island
        from (
            select posting >> 46 as chunk, min(posting) >> 40 as first_period, max(posting) >> 40 as last_period
            from posting_days
            where day between first_day and last_day and posting < boundary
            group by 1
        ) as chunks
    ) as islands
    group by island
$$
