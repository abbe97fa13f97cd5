-- An SQL query for the usage of organizations in a contiguous interval.
--
-- Parameters:
--   organizations  integer[]      only these; null for all
--   record_edges   timestamptz[]  ranges to read from the records, ascending: start, end, start, end…
--   slot_edges     timestamptz[]  ranges of whole quarter hours
--   day_edges      timestamptz[]  ranges of whole UTC days; all together are the interval
-- Columns:
--   organization_parts  text  a query with the columns organization_id, at (timestamptz), bytes
--                             (bigint), large_bytes (numeric) and records; null if there is nothing
--                             to read
--
-- Closed postings come from organization_usage_daily and organization_usage; those of the row store
-- from organization_usage_recent, as far as its pages are closed; all others from the records. See
-- also sim_card_parts.

create or replace function organization_parts(
    organizations integer[],
    record_edges timestamptz[],
    slot_edges timestamptz[],
    day_edges timestamptz[]
) returns text
language plpgsql
stable
set plan_cache_mode = force_generic_plan
as $$
declare
    closed bigint;
    archived bigint;
    recent bigint;
    has_large boolean;
    has_dropped boolean;
    -- The ranges that aggregates can answer.
    aggregate_edges timestamptz[];
    series_start timestamptz := least(record_edges[1], slot_edges[1], day_edges[1]);
    series_end timestamptz := greatest(
        record_edges[cardinality(record_edges)], slot_edges[cardinality(slot_edges)], day_edges[cardinality(day_edges)]
    );
    first_day date := (series_start at time zone 'UTC')::date;
    last_day date := ((series_end - interval '1 us') at time zone 'UTC')::date;
    visible text := in_organizations(organizations);
    of_records text := 'select organization_id, time as at, bytes, null::numeric as large_bytes,'
        ' case when reverses is null then 1 else -1 end as records from %s where posting >= %s and posting < %s and %s%s';
    of_aggregate text := 'select organization_id, %s as at, bytes, null::numeric as large_bytes, records from %s'
        ' where %s >= %s and %s < %s and %s%s';
    whole text := time_within('time', array[series_start, series_end]);
    parts text[] := '{}';
    run record;
    open_archive boolean;
    open_recent boolean;
    open_large boolean;
begin
    if series_start is null then
        return null;
    end if;
    select
        min(closed_before) filter (where level in ('organization_usage', 'organization_usage_daily')),
        max(closed_before) filter (where level = 'usage_records'),
        max(closed_before) filter (where level in ('usage_records', 'organization_usage_recent')),
        bool_or(level = 'large_usage' and closed_before > 0),
        bool_or(kept_from > '-infinity')
    into closed, archived, recent, has_large, has_dropped
    from usage_levels;
    if has_dropped then
        perform
            check_kept('usage_records', record_edges[1]),
            check_kept('organization_usage', slot_edges[1]),
            check_kept('organization_usage_daily', day_edges[1]);
    end if;
    select array_agg(edge order by edge) into aggregate_edges
    from (
        -- Where one range ends and the next begins, the edge goes.
        select edge from unnest(slot_edges || day_edges) as edge group by edge having count(*) = 1
    ) as edges;
    for run in select * from posting_runs(first_day, last_day, closed) loop
        if cardinality(day_edges) > 0 then
            parts := parts || format(
                of_aggregate, 'day', 'organization_usage_daily', 'period', run.run_start, 'period', run.run_end,
                time_within('day', day_edges), visible
            );
        end if;
        if cardinality(slot_edges) > 0 then
            parts := parts || format(
                of_aggregate, 'slot', 'organization_usage', 'period', run.run_start, 'period', run.run_end,
                time_within('slot', slot_edges), visible
            );
        end if;
        if has_large and aggregate_edges is not null then
            parts := parts || format(
                'select organization_id, slot as at, null::bigint as bytes, bytes as large_bytes, records from large_usage'
                ' where period >= %s and period < %s and %s%s',
                run.run_start, run.run_end, time_within('slot', aggregate_edges), visible
            );
        end if;
        if cardinality(record_edges) > 0 then
            parts := parts || format(
                of_records, 'usage_records', run.run_start, run.run_end, time_within('time', record_edges), visible
            );
        end if;
    end loop;
    select
        coalesce(bool_or(posting >= closed and not is_recent), false),
        coalesce(bool_or(is_recent), false),
        coalesce(bool_or(is_recent and is_large), false)
    into open_archive, open_recent, open_large
    from posting_days
    where posting >= closed >> 40 << 40 and day between first_day and last_day;
    if open_archive then
        parts := parts || format(of_records, 'usage_records', closed, '9223372036854775807', whole, visible);
    end if;
    if open_recent then
        if archived < recent then
            if aggregate_edges is not null then
                parts := parts || format(
                    of_aggregate, 'slot', 'organization_usage_recent', 'page', archived, 'page', recent,
                    time_within('slot', aggregate_edges), visible
                );
                if open_large then
                    parts := parts || format(
                        of_records, 'usage_records_recent', archived, recent, time_within('time', aggregate_edges),
                        visible || ' and bytes not between -274877906943 and 274877906943'
                    );
                end if;
            end if;
            if cardinality(record_edges) > 0 then
                parts := parts || format(
                    of_records, 'usage_records_recent', archived, recent, time_within('time', record_edges), visible
                );
            end if;
        end if;
        parts := parts || format(
            of_records, 'usage_records_recent', recent, '9223372036854775807', whole, visible
        );
    end if;
    return nullif(array_to_string(parts, ' union all '), '');
end
$$
