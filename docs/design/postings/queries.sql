-- What the API reads. All functions are stable: each of their statements sees the snapshot of the statement that
-- called, hence the register and the rows of one instant. SQL is built with constants, because chunks are excluded
-- when it is planned.

-- The posting ranges, each within adjacent chunks of 2^shift postings, that contain event days.
create or replace function posting_runs(first_day date, last_day date, shift integer)
returns table (run_start bigint, run_end bigint)
language sql stable as $$
    select min(chunk) << shift, (max(chunk) + 1) << shift
    from (
        select chunk, chunk - row_number() over (order by chunk) as island
        from (
            select distinct posting >> shift as chunk from posting_days where day between first_day and last_day
        ) as chunks
    ) as islands
    group by island
$$;

-- (e) The version of an interval: changes whenever anything in the interval's days changes, from the commit on. open_records are the records
-- that no aggregate of SIM cards has yet.
create or replace function usage_version(interval_start timestamptz, interval_end timestamptz)
returns table (version bigint, open_records bigint)
language sql stable as $$
    select
        coalesce(sum(batches), 0)::bigint,
        coalesce(sum(records) filter (
            where posting >= (select closed_before from usage_levels where level = 'sim_card_usage')
        ), 0)::bigint
    from posting_days
    where day >= (interval_start at time zone 'UTC')::date
        and day <= ((interval_end - interval '1 microsecond') at time zone 'UTC')::date
$$;

-- The tables that may have records of event days which an aggregate, closed before some posting, does not have: empty
-- ones are not planned.
create or replace function open_sources(first_day date, last_day date, closed bigint, archived bigint)
returns table (from_archive boolean, from_recent boolean)
language sql stable as $$
    select
        coalesce(bool_or(posting >= closed and not is_recent), false),
        coalesce(bool_or(posting >= archived >> 40 << 40 and is_recent), false)
    from posting_days
    where day between first_day and last_day and posting >= closed >> 40 << 40
$$;

-- (a) A SIM card's series. Pieces of whole UTC days are read from sim_card_usage, others from the records; edges are the
-- starts of the buckets and the end of the last. organizations: null for all.
create or replace function sim_card_series(
    sim_card integer,
    organizations integer[],
    day_starts timestamptz[],
    day_ends timestamptz[],
    record_starts timestamptz[],
    record_ends timestamptz[],
    edges timestamptz[]
)
returns table (number integer, bytes numeric, records bigint)
language plpgsql stable
set enable_mergejoin = off
as $$
declare
    closed bigint := (select closed_before from usage_levels where level = 'sim_card_usage');
    archived bigint := (select closed_before from usage_levels where level = 'usage_records');
    has_large boolean := exists (select from posting_days where is_large);
    series_start timestamptz := edges[1];
    series_end timestamptz := edges[cardinality(edges)];
    first_day date := (series_start at time zone 'UTC')::date;
    last_day date := ((series_end - interval '1 us') at time zone 'UTC')::date;
    visible text := case when organizations is null then '' else format(' and organization_id = any(%L::integer[])', organizations) end;
    of_records text := 'select time as at, bytes::numeric as bytes, case when reverses is null then 1 else -1 end as records from %s'
        ' where sim_card_id = %s and posting >= %s and posting < %s and time >= %L and time < %L%s';
    parts text[] := '{}';
    run record;
    sources record;
begin
    for run in select run_start, least(run_end, closed) as run_end from posting_runs(first_day, last_day, 46) where run_start < closed loop
        for i in 1 .. cardinality(day_starts) loop
            parts := parts || format(
                'select day as at, bytes::numeric as bytes, records from sim_card_usage'
                ' where sim_card_id = %s and period >= %s and period < %s and day >= %L and day < %L%s',
                sim_card, run.run_start, run.run_end, day_starts[i], day_ends[i], visible
            );
            if has_large then
                parts := parts || format(
                    'select slot, bytes, records from large_usage'
                    ' where sim_card_id = %s and period >= %s and period < %s and slot >= %L and slot < %L%s',
                    sim_card, run.run_start, run.run_end, day_starts[i], day_ends[i], visible
                );
            end if;
        end loop;
        for i in 1 .. cardinality(record_starts) loop
            parts := parts || format(
                of_records, 'usage_records', sim_card, run.run_start, run.run_end, record_starts[i], record_ends[i], visible
            );
        end loop;
    end loop;
    select * into sources from open_sources(first_day, last_day, closed, archived);
    if sources.from_archive then
        parts := parts || format(of_records, 'usage_records', sim_card, closed, '9223372036854775807', series_start, series_end, visible);
    end if;
    if sources.from_recent then
        parts := parts || format(of_records, 'usage_records_recent', sim_card, archived, '9223372036854775807', series_start, series_end, visible);
    end if;
    if parts = '{}' then
        return;
    end if;
    return query execute
        'select width_bucket(at, $1), sum(bytes)::numeric, sum(records)::bigint from (' || array_to_string(parts, ' union all ') || ') as part group by 1 order by 1'
        using edges;
end
$$;

-- What organizations used, by bucket: pieces of whole quarter hours from the aggregates, others from the records.
-- A null grouping by organization gives the series of all that are named; by_organization gives the list (d).
create or replace function organization_parts(
    organizations integer[],
    slot_starts timestamptz[],
    slot_ends timestamptz[],
    record_starts timestamptz[],
    record_ends timestamptz[]
)
returns text
language plpgsql stable
as $$
declare
    recent bigint := (select closed_before from usage_levels where level = 'organization_usage_recent');
    closed bigint := (select closed_before from usage_levels where level = 'organization_usage');
    archived bigint := (select closed_before from usage_levels where level = 'usage_records');
    has_large boolean := exists (select from posting_days where is_large);
    visible text := case
        when organizations is null then ''
        when cardinality(organizations) = 1 then format(' and organization_id = %s', organizations[1])
        else format(' and organization_id = any(%L::integer[])', organizations)
    end;
    of_records text := 'select organization_id, time as at, bytes, case when reverses is null then 1 else -1 end as records, null::numeric as bytes_large'
        ' from %s where posting >= %s and posting < %s and time >= %L and time < %L%s';
    parts text[] := '{}';
    run record;
    sources record;
    first_day date;
    last_day date;
begin
    for i in 1 .. coalesce(cardinality(slot_starts), 0) loop
        first_day := (slot_starts[i] at time zone 'UTC')::date;
        last_day := ((slot_ends[i] - interval '1 us') at time zone 'UTC')::date;
        for run in select run_start, least(run_end, closed) as run_end from posting_runs(first_day, last_day, 46) where run_start < closed loop
            parts := parts || format(
                'select organization_id, slot as at, bytes, records, null::numeric as bytes_large from organization_usage'
                ' where period >= %s and period < %s and slot >= %L and slot < %L%s',
                run.run_start, run.run_end, slot_starts[i], slot_ends[i], visible
            );
            if has_large then
                parts := parts || format(
                    'select organization_id, slot as at, null::bigint as bytes, records, bytes as bytes_large from large_usage'
                    ' where period >= %s and period < %s and slot >= %L and slot < %L%s',
                    run.run_start, run.run_end, slot_starts[i], slot_ends[i], visible
                );
            end if;
        end loop;
        select * into sources from open_sources(first_day, last_day, closed, archived);
        if sources.from_archive then
            parts := parts || format(of_records, 'usage_records', closed, '9223372036854775807', slot_starts[i], slot_ends[i], visible);
        end if;
        if sources.from_recent then
            if archived < recent then
                parts := parts || format(
                    'select organization_id, slot as at, bytes, records, null::numeric as bytes_large from organization_usage_recent'
                    ' where page >= %s and page < %s and slot >= %L and slot < %L%s',
                    archived, recent, slot_starts[i], slot_ends[i], visible
                );
                if has_large then
                    parts := parts || format(
                        of_records, 'usage_records_recent', archived, recent, slot_starts[i], slot_ends[i],
                        visible || ' and bytes not between -274877906943 and 274877906943'
                    );
                end if;
            end if;
            parts := parts || format(of_records, 'usage_records_recent', greatest(recent, archived), '9223372036854775807', slot_starts[i], slot_ends[i], visible);
        end if;
    end loop;
    for i in 1 .. coalesce(cardinality(record_starts), 0) loop
        first_day := (record_starts[i] at time zone 'UTC')::date;
        last_day := ((record_ends[i] - interval '1 us') at time zone 'UTC')::date;
        for run in select * from posting_runs(first_day, last_day, 46) loop
            parts := parts || format(of_records, 'usage_records', run.run_start, run.run_end, record_starts[i], record_ends[i], visible);
        end loop;
        parts := parts || format(of_records, 'usage_records_recent', archived, '9223372036854775807', record_starts[i], record_ends[i], visible);
    end loop;
    if parts = '{}' then
        return 'select null::integer as organization_id, null::timestamptz as at, null::bigint as bytes, null::bigint as records, null::numeric as bytes_large where false';
    end if;
    return array_to_string(parts, ' union all ');
end
$$;

-- (a) An organization's series.
create or replace function organization_series(
    organization integer,
    slot_starts timestamptz[],
    slot_ends timestamptz[],
    record_starts timestamptz[],
    record_ends timestamptz[],
    edges timestamptz[]
)
returns table (number integer, bytes numeric, records bigint)
language plpgsql stable as $$
begin
    return query execute
        'select width_bucket(at, $1), coalesce(sum(bytes), 0) + coalesce(sum(bytes_large), 0), sum(records)::bigint from ('
        || organization_parts(array[organization], slot_starts, slot_ends, record_starts, record_ends)
        || ') as part group by 1 order by 1'
        using edges;
end
$$;

-- (d) Organizations with their usage; sorting and paging a few thousand rows is left to the caller's statement.
create or replace function organization_list(
    organizations integer[],
    slot_starts timestamptz[],
    slot_ends timestamptz[],
    record_starts timestamptz[],
    record_ends timestamptz[]
)
returns table (organization_id integer, bytes numeric, records bigint)
language plpgsql stable as $$
begin
    return query execute
        'select organization_id, coalesce(sum(bytes), 0) + coalesce(sum(bytes_large), 0), sum(records)::bigint from ('
        || organization_parts(organizations, slot_starts, slot_ends, record_starts, record_ends)
        || ') as part group by 1';
end
$$;

-- (b) and (c): one page of the SIM cards with usage, with the totals of the whole list.
--
-- The rows are grouped a slice of 12,000 SIM cards at a time, because TimescaleDB's vectorized aggregation reduces
-- rows only while its hash table is below 512 kB, and then takes a third to a quarter of one GROUP BY: 30 days of 1,000,000
-- SIM cards take 1.4 to 1.75 s of CPU instead of 4 to 6. Each slice reports only what can still be in the page.
--
-- direction: -1 most bytes first, 1 fewest bytes first. after_bytes and after_iccid: the last row of the page before.
create or replace function sim_card_list(
    organizations integer[],
    day_start timestamptz,
    day_end timestamptz,
    record_starts timestamptz[],
    record_ends timestamptz[],
    direction integer,
    after_bytes numeric,
    after_iccid text,
    page_limit bigint,
    page_offset bigint
)
returns table (total bigint, all_bytes numeric, sim_card_id integer, iccid text, bytes numeric, records bigint)
language plpgsql stable
set enable_sort = off
set timescaledb.enable_decompression_sorted_merge = off
set max_parallel_workers_per_gather = 0
as $$
#variable_conflict use_column
declare
    slice constant integer := 12000;
    last_sim_card integer := (select max(id) from sim_cards);
    closed bigint := (select closed_before from usage_levels where level = 'sim_card_usage');
    archived bigint := (select closed_before from usage_levels where level = 'usage_records');
    has_large boolean := exists (select from posting_days where is_large);
    visible text := case
        when organizations is null then ''
        when cardinality(organizations) = 1 then format(' and organization_id = %s', organizations[1])
        else format(' and organization_id = any(%L::integer[])', organizations)
    end;
    interval_start timestamptz := least(day_start, record_starts[1]);
    interval_end timestamptz := greatest(day_end, record_ends[cardinality(record_ends)]);
    of_records text := 'select sim_card_id, bytes, reverses from %s where posting >= %s and time >= %L and time < %L%s';
    edges text;
    open_parts text[] := '{}';
    sources record;
    parts text[] := '{}';
    closed_rows text;
    slice_query text;
    open_sim_cards integer[];
    open_bytes numeric[];
    slice_offsets integer[];
    o integer;
    run record;
    slice_start integer := 0;
    slice_end integer;
    rows_wanted bigint := page_offset + page_limit;
    threshold numeric;
    slice_total bigint;
    slice_bytes numeric;
    slice_ids integer[];
    slice_places numeric[];
    ids integer[] := '{}';
    places numeric[] := '{}';
    after_place numeric := direction * after_bytes;
    page_ids integer[];
begin
    total := 0;
    all_bytes := 0;
    -- What no aggregate has yet, once, cut into slices.
    select * into sources from open_sources(
        (interval_start at time zone 'UTC')::date, ((interval_end - interval '1 us') at time zone 'UTC')::date, closed, archived
    );
    if sources.from_archive then
        open_parts := open_parts || format(of_records, 'usage_records', closed, interval_start, interval_end, visible);
    end if;
    if sources.from_recent then
        open_parts := open_parts || format(of_records, 'usage_records_recent', archived, interval_start, interval_end, visible);
    end if;
    if open_parts <> '{}' then
        execute
            'select array_agg(sim_card_id order by sim_card_id), array_agg(bytes order by sim_card_id) from ('
            ' select sim_card_id, sum(bytes) as bytes from (' || array_to_string(open_parts, ' union all ') || ') as part group by 1) as open'
        into open_sim_cards, open_bytes;
    end if;
    -- What is closed: days from the aggregate, cut edges from the records.
    if day_start < day_end then
        for run in select * from posting_runs((day_start at time zone 'UTC')::date, ((day_end - interval '1 us') at time zone 'UTC')::date, 46) loop
            if run.run_start < closed then
                parts := parts || format(
                    'select sim_card_id, sum(bytes) as bytes from sim_card_usage where sim_card_id >= $1 and sim_card_id < $2 and period >= %s and period < %s and day >= %L and day < %L%s group by 1',
                    run.run_start, least(run.run_end, closed), day_start, day_end, visible
                );
                if has_large then
                    parts := parts || format(
                        'select sim_card_id, sum(bytes) as bytes from large_usage where sim_card_id >= $1 and sim_card_id < $2 and period >= %s and period < %s and slot >= %L and slot < %L%s group by 1',
                        run.run_start, least(run.run_end, closed), day_start, day_end, visible
                    );
                end if;
            end if;
        end loop;
    end if;
    -- The cut edges in one scan: each costs every slice a look at the metadata of all batches.
    if cardinality(record_starts) > 0 then
        select string_agg(format('time >= %L and time < %L', edge_start, edge_end), ' or ') into edges
        from unnest(record_starts, record_ends) as edge (edge_start, edge_end);
        for run in
            select run_start, least(run_end, closed) as run_end
            from posting_runs(
                (record_starts[1] at time zone 'UTC')::date,
                ((record_ends[cardinality(record_ends)] - interval '1 us') at time zone 'UTC')::date,
                46
            )
            where run_start < closed
        loop
            parts := parts || format(
                -- Adding 0 keeps the planner from grouping in the order of the columnstore, row by row.
                'select sim_card_id + 0 as sim_card_id, sum(bytes) as bytes from usage_records where sim_card_id >= $1 and sim_card_id < $2 and posting >= %s and posting < %s and (%s)%s group by 1',
                run.run_start, run.run_end, edges, visible
            );
        end loop;
    end if;
    if open_sim_cards is not null then
        parts := parts || 'select * from unnest($4, $5)'::text;
    end if;
    if parts = '{}' then
        parts := parts || 'select 0 as sim_card_id, 0::numeric as bytes where $1 > $2'::text;
    end if;
    closed_rows := array_to_string(parts, ' union all ');
    if cardinality(parts) > 1 then
        closed_rows := 'select sim_card_id, sum(bytes) as bytes from (' || closed_rows || ') as part group by 1';
    end if;
    slice_query := format(
        'select count(*), coalesce(sum(bytes), 0), array_agg(sim_card_id) filter (where %1$s * bytes <= $3), array_agg(%1$s * bytes) filter (where %1$s * bytes <= $3) from (%2$s offset 0) as usage',
        direction, closed_rows
    );
    threshold := 'infinity';
    o := 1;
    while slice_start <= last_sim_card loop
        slice_end := case when cardinality(organizations) = 1 then last_sim_card + 1 else slice_start + slice end;
        declare
            o_end integer := o;
        begin
            if open_sim_cards is not null then
                -- The first row of the next slice, by bisection.
                declare low integer := o; high integer := cardinality(open_sim_cards) + 1; middle integer;
                begin
                    while low < high loop
                        middle := (low + high) / 2;
                        if open_sim_cards[middle] < slice_end then low := middle + 1; else high := middle; end if;
                    end loop;
                    o_end := low;
                end;
            end if;
            execute slice_query into slice_total, slice_bytes, slice_ids, slice_places
                using slice_start, slice_end, threshold, open_sim_cards[o : o_end - 1], open_bytes[o : o_end - 1];
            o := o_end;
        end;
        total := total + slice_total;
        all_bytes := all_bytes + slice_bytes;
        if slice_ids is not null then
            ids := ids || slice_ids;
            places := places || slice_places;
            if after_place is not null then
                select array_agg(id), array_agg(place) into ids, places
                from unnest(ids, places) as row (id, place)
                where place >= after_place;
                ids := coalesce(ids, '{}');
                places := coalesce(places, '{}');
            end if;
            if cardinality(ids) > rows_wanted then
                -- Equals of the last row that is wanted stay: which of them it is, is decided by identifier.
                select place into threshold
                from unnest(places) as row (place)
                where after_place is null or place > after_place
                order by place offset greatest(rows_wanted - 1, 0) limit 1;
                threshold := coalesce(threshold, 'infinity');
                select array_agg(id), array_agg(place) into ids, places
                from unnest(ids, places) as row (id, place)
                where place <= threshold;
            end if;
        end if;
        slice_start := slice_end;
    end loop;
    select array_agg(id) into page_ids
    from (
        select id
        from unnest(ids, places) as row (id, place)
        join sim_cards using (id)
        where after_place is null or (place, sim_cards.iccid) > (after_place, after_iccid)
        order by place, sim_cards.iccid
        limit page_limit offset page_offset
    ) as page;
    if page_ids is null then
        return next;
        return;
    end if;
    -- Records of the rows of the page.
    for i in 1 .. cardinality(parts) loop
        parts[i] := replace(parts[i], 'sim_card_id >= $1 and sim_card_id < $2', 'sim_card_id = any($1)');
        parts[i] := replace(parts[i], 'as bytes from sim_card_usage', 'as bytes, sum(records)::bigint as records from sim_card_usage');
        parts[i] := replace(parts[i], 'as bytes from large_usage', 'as bytes, sum(records)::bigint as records from large_usage');
        parts[i] := replace(parts[i], 'as bytes from usage_records', 'as bytes, count(*) - 2 * count(reverses) as records from usage_records');
        if parts[i] like '%unnest%' then
            parts[i] := 'select sim_card_id, sum(bytes) as bytes, count(*) - 2 * count(reverses) as records from ('
                || array_to_string(open_parts, ' union all ') || ') as open where sim_card_id = any($1) group by 1';
        end if;
    end loop;
    return query execute
        'select $2, $3, sim_card_id, iccid, bytes, records from ('
        || ' select sim_card_id, sum(bytes) as bytes, sum(records)::bigint as records from (' || array_to_string(parts, ' union all ') || ') as part group by 1'
        || ') as usage join sim_cards on id = sim_card_id order by $4 * bytes, iccid'
        using page_ids, total, all_bytes, direction;
end
$$;
