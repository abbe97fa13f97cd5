-- The usage that is stored for another organization than the inventory has now: records keep the
-- organization of the inventory at the time of their ingest.
--
-- Columns:
--   stored     text     the organization of the records
--   current    text     the organization according to the inventory; null: none
--   sim_cards  bigint
--   records    bigint
--   bytes      numeric
--
-- Reads the days of SIM cards, and records only where a day does not belong to one organization: on a
-- day in which an assignment begins or ends. If those records have been dropped, such a day is left out.

create or replace function inventory_differences()
returns table (stored text, current text, sim_cards bigint, records bigint, bytes numeric)
language plpgsql
stable
set max_parallel_workers_per_gather = 0
set jit = off
as $$
declare
    closed bigint;
    archived bigint;
    has_large boolean;
    cut text := '(select distinct sim_card_id, date_bin(''1 day'', valid_from, ''2000-01-01 00:00+00'') as day'
        ' from sim_card_assignments where valid_from > ''-infinity'''
        ' and valid_from <> date_bin(''1 day'', valid_from, ''2000-01-01 00:00+00''))';
    first_cut timestamptz;
    last_cut timestamptz;
    of_day text := 'select %1$s.sim_card_id, %2$s as at, organization_id, bytes, records from %1$s'
        ' where %3$s >= %4$s and %3$s < %5$s';
    not_cut text := ' and not exists (select from cut where cut.sim_card_id = %1$s.sim_card_id'
        ' and cut.day = date_bin(''1 day'', %1$s.%2$s, ''2000-01-01 00:00+00''))';
    of_records text := 'select sim_card_id, time, organization_id, bytes, case when reverses is null then 1 else -1 end'
        ' from %1$s where posting >= %2$s';
    parts text[];
    run record;
begin
    select
        max(closed_before) filter (where level = 'sim_card_usage'),
        max(closed_before) filter (where level = 'usage_records'),
        bool_or(level = 'large_usage' and closed_before > 0)
    into closed, archived, has_large
    from usage_levels;
    execute 'select min(day), max(day) + interval ''24 hours'' from ' || cut || ' as cut' into first_cut, last_cut;
    if first_cut is null then
        not_cut := '';
    end if;
    parts := array[
        format(of_records, 'usage_records', closed),
        format(of_records, 'usage_records_recent', archived)
    ];
    if has_large then
        parts := parts || format(of_day || not_cut, 'large_usage', 'slot', 'period', 0, closed);
    end if;
    for run in select * from sim_card_runs('-infinity', 'infinity', closed) loop
        parts := parts || format(
            of_day || not_cut, run.aggregate, 'day', run.start_column, run.run_start, run.run_end
        );
    end loop;
    if first_cut is not null then
        parts := parts || format(
            'select usage_records.sim_card_id, time, organization_id, bytes, case when reverses is null then 1 else -1 end'
            ' from usage_records join cut on cut.sim_card_id = usage_records.sim_card_id'
            ' and time >= cut.day and time < cut.day + interval ''24 hours'''
            ' where posting < %s and time >= %L and time < %L',
            closed, first_cut, last_cut
        );
    end if;
    return query execute
        'with cut as materialized ' || cut || ','
        ' spans as materialized ('
        '     select sim_card_id, valid_from, organization_id,'
        '         lead(valid_from, 1, ''infinity'') over (partition by sim_card_id order by valid_from) as valid_until'
        '     from sim_card_assignments'
        ' ),'
        ' differences as ('
        '     select usage.organization_id as stored, spans.organization_id as current,'
        '         count(distinct usage.sim_card_id) as sim_cards, sum(usage.records)::bigint as records,'
        '         sum(usage.bytes) as bytes'
        '     from (' || array_to_string(parts, ' union all ') || ') as usage (sim_card_id, at, organization_id, bytes, records)'
        '     left join spans'
        '         on spans.sim_card_id = usage.sim_card_id and usage.at >= spans.valid_from and usage.at < spans.valid_until'
        '     where spans.organization_id is distinct from usage.organization_id'
        '     group by 1, 2'
        '     having sum(usage.records) <> 0 or sum(usage.bytes) <> 0'
        ' )'
        ' select stored.name, current.name, differences.sim_cards, differences.records, differences.bytes'
        ' from differences'
        ' join organizations as stored on stored.id = differences.stored'
        ' left join organizations as current on current.id = differences.current'
        ' order by differences.bytes desc, 1, 2';
end
$$
