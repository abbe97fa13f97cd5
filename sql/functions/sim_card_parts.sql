-- An SQL query for the usage of a SIM card in a contiguous interval.
--
-- Parameters:
--   sim_card       integer
--   organizations  integer[]      only these; null for all
--   record_edges   timestamptz[]  ranges to read from the records, ascending: start, end, start, end…
--   day_edges      timestamptz[]  ranges of whole UTC days; together with record_edges, the interval
-- Columns:
--   sim_card_parts  text  a query with the columns at (timestamptz), bytes (numeric), records; null
--                         if there is nothing to read
--
-- Postings that are closed come from sim_card_usage_merged or sim_card_usage, or from the records for
-- other ranges than whole days. All others come from the records. The query is planned on every call, with constants,
-- so that only the chunks it needs are planned.

create or replace function sim_card_parts(
    sim_card integer,
    organizations integer[],
    record_edges timestamptz[],
    day_edges timestamptz[]
) returns text
language plpgsql
stable
set plan_cache_mode = force_generic_plan
as $$
declare
    closed bigint;
    archived bigint;
    has_large boolean;
    has_dropped boolean;
    series_start timestamptz := least(record_edges[1], day_edges[1]);
    series_end timestamptz := greatest(record_edges[cardinality(record_edges)], day_edges[cardinality(day_edges)]);
    first_day date := (series_start at time zone 'UTC')::date;
    last_day date := ((series_end - interval '1 us') at time zone 'UTC')::date;
    visible text := in_organizations(organizations);
    of_records text := 'select time as at, bytes::numeric as bytes, case when reverses is null then 1 else -1 end as records'
        ' from %s where sim_card_id = %s and posting >= %s and posting < %s and %s%s';
    whole text := time_within('time', array[series_start, series_end]);
    parts text[] := '{}';
    run record;
    open_archive boolean;
    open_recent boolean;
begin
    if series_start is null then
        return null;
    end if;
    select
        max(closed_before) filter (where level = 'sim_card_usage'),
        max(closed_before) filter (where level = 'usage_records'),
        bool_or(level = 'large_usage' and closed_before > 0),
        bool_or(kept_from > '-infinity')
    into closed, archived, has_large, has_dropped
    from usage_levels;
    if has_dropped then
        perform check_kept('usage_records', record_edges[1]), check_kept('sim_card_usage', day_edges[1]);
    end if;
    for run in select * from sim_card_runs(first_day, last_day, closed) loop
        if cardinality(day_edges) > 0 then
            parts := parts || format(
                'select day as at, bytes::numeric as bytes, records from %1$s'
                ' where sim_card_id = %3$s and %2$s >= %4$s and %2$s < %5$s and %6$s%7$s',
                run.aggregate, run.start_column,
                sim_card, run.run_start, run.run_end, time_within('day', day_edges), visible
            );
            if has_large then
                parts := parts || format(
                    'select slot as at, bytes, records from large_usage'
                    ' where sim_card_id = %s and period >= %s and period < %s and %s%s',
                    sim_card, run.run_start, run.run_end, time_within('slot', day_edges), visible
                );
            end if;
        end if;
        if cardinality(record_edges) > 0 then
            parts := parts || format(
                of_records, 'usage_records', sim_card, run.run_start, run.run_end, time_within('time', record_edges), visible
            );
        end if;
    end loop;
    select coalesce(bool_or(posting >= closed and not is_recent), false), coalesce(bool_or(is_recent), false)
    into open_archive, open_recent
    from posting_days
    where posting >= closed >> 40 << 40 and day between first_day and last_day;
    if open_archive then
        parts := parts || format(of_records, 'usage_records', sim_card, closed, '9223372036854775807', whole, visible);
    end if;
    if open_recent then
        parts := parts || format(of_records, 'usage_records_recent', sim_card, archived, '9223372036854775807', whole, visible);
    end if;
    return nullif(array_to_string(parts, ' union all '), '');
end
$$
