-- One page of the SIM cards with usage in an interval, with the totals of the whole list.
--
-- Parameters:
--   organizations  integer[]      only usage of these; null for all
--   record_edges   timestamptz[]  ranges to read from the records, ascending: start, end, start, end
--   day_edges      timestamptz[]  the range of whole UTC days: start, end; empty if there is none
--   direction      integer        order: 1 by bytes, -1 by bytes descending, 0 by ICCID; ties are
--                                 ordered by ICCID
--   after_place    numeric        only SIM cards after this place (direction * bytes); null for all
--   after_iccid    text           and after this ICCID, among those with that place
--   page_limit     bigint         maximum number of SIM cards; null for all
--   page_offset    bigint         number of SIM cards to skip
-- Columns; an empty page is one row with a null ICCID:
--   total      bigint   number of SIM cards on all pages
--   all_bytes  numeric  bytes on all pages
--   place      numeric  direction * bytes
--   iccid      text
--   bytes      numeric
--   records    bigint
--
-- The rows are grouped for 12,000 SIM cards at a time. TimescaleDB's vectorized aggregation reduces
-- rows only while its hash table is below 512 kB: 30 days of 1,000,000 SIM cards took 1.4 to 1.75 s
-- of CPU time this way, and 4 to 6 s with one GROUP BY. Each slice returns only what may be on the
-- page.

create or replace function sim_card_list(
    organizations integer[],
    record_edges timestamptz[],
    day_edges timestamptz[],
    direction integer,
    after_place numeric,
    after_iccid text,
    page_limit bigint,
    page_offset bigint
)
returns table (total bigint, all_bytes numeric, place numeric, iccid text, bytes numeric, records bigint)
language plpgsql
stable
set enable_sort = off
set timescaledb.enable_decompression_sorted_merge = off
set max_parallel_workers_per_gather = 0
set jit = off
as $$
#variable_conflict use_column
declare
    slice_size constant integer := 12000;
    last_sim_card integer := (select max(id) from sim_cards);
    closed bigint;
    archived bigint;
    has_large boolean;
    has_dropped boolean;
    visible text := in_organizations(organizations);
    interval_start timestamptz := least(record_edges[1], day_edges[1]);
    interval_end timestamptz := greatest(record_edges[cardinality(record_edges)], day_edges[2]);
    first_day date := (interval_start at time zone 'UTC')::date;
    last_day date := ((interval_end - interval '1 us') at time zone 'UTC')::date;
    -- Without a limit, the slices return the records of each SIM card, too.
    is_unlimited boolean := page_limit is null;
    open_records text := 'select sim_card_id, bytes, reverses from %s where posting >= %s and %s%s';
    open_parts text[] := '{}';
    open_archive boolean;
    open_recent boolean;
    open_sim_cards integer[];
    open_bytes numeric[];
    open_counts bigint[];
    o integer := 1;
    o_end integer;
    parts text[] := '{}';
    run record;
    slice_usage text;
    slice_query text;
    slice_start integer := 0;
    slice_end integer;
    slice_total bigint;
    slice_bytes numeric;
    slice_ids integer[];
    slice_places numeric[];
    slice_sums numeric[];
    slice_counts bigint[];
    rows_wanted bigint := page_offset + page_limit;
    threshold numeric := 'infinity';
    ids integer[] := '{}';
    places numeric[] := '{}';
    sums numeric[] := '{}';
    counts bigint[] := '{}';
    page_ids integer[];
begin
    total := 0;
    all_bytes := 0;
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
    select coalesce(bool_or(posting >= closed and not is_recent), false), coalesce(bool_or(is_recent), false)
    into open_archive, open_recent
    from posting_days
    where posting >= closed >> 40 << 40 and day between first_day and last_day;
    -- What no aggregate has yet: read once, and divided among the slices.
    if open_archive then
        open_parts := open_parts || format(
            open_records, 'usage_records', closed, time_within('time', array[interval_start, interval_end]), visible
        );
    end if;
    if open_recent then
        open_parts := open_parts || format(
            open_records, 'usage_records_recent', archived, time_within('time', array[interval_start, interval_end]), visible
        );
    end if;
    if open_parts <> '{}' then
        execute
            'select array_agg(sim_card_id order by sim_card_id), array_agg(bytes order by sim_card_id),'
            ' array_agg(records order by sim_card_id) from ('
            ' select sim_card_id, sum(bytes) as bytes, count(*) - 2 * count(reverses) as records'
            ' from (' || array_to_string(open_parts, ' union all ') || ') as part group by 1) as open'
        into open_sim_cards, open_bytes, open_counts;
    end if;
    for run in select * from sim_card_runs(first_day, last_day, closed) loop
        if cardinality(day_edges) > 0 then
            parts := parts || format(
                'select sim_card_id, sum(bytes) as bytes, sum(records)::bigint as records from %1$s'
                ' where sim_card_id >= $1 and sim_card_id < $2 and %2$s >= %3$s and %2$s < %4$s%5$s%6$s group by 1',
                run.aggregate, run.start_column, run.run_start, run.run_end,
                -- Where all days are wanted, the column is not read.
                case when exists (
                    select from posting_days
                    where posting >= run.run_start and posting < run.run_end
                    and (day < (day_edges[1] at time zone 'UTC')::date or day >= (day_edges[2] at time zone 'UTC')::date)
                ) then ' and ' || time_within('day', day_edges) else '' end,
                visible
            );
            if has_large then
                parts := parts || format(
                    'select sim_card_id, sum(bytes) as bytes, sum(records)::bigint as records from large_usage'
                    ' where sim_card_id >= $1 and sim_card_id < $2 and period >= %s and period < %s and %s%s group by 1',
                    run.run_start, run.run_end, time_within('slot', day_edges), visible
                );
            end if;
        end if;
        if cardinality(record_edges) > 0 then
            parts := parts || format(
                -- Adding 0 keeps the planner from grouping in the order of the columnstore, row by row.
                'select sim_card_id + 0 as sim_card_id, sum(bytes) as bytes,'
                ' count(*) - 2 * count(reverses) as records from usage_records'
                ' where sim_card_id >= $1 and sim_card_id < $2 and posting >= %s and posting < %s and (%s)%s group by 1',
                run.run_start, run.run_end,
                case
                    when cardinality(record_edges) = 2 then time_within('time', record_edges)
                    else format(
                        'time >= %L and time < %L or time >= %L and time < %L',
                        record_edges[1], record_edges[2], record_edges[3], record_edges[4]
                    )
                end,
                visible
            );
        end if;
    end loop;
    if open_sim_cards is not null then
        parts := parts || 'select sim_card_id, bytes, records from unnest($4, $5, $6) as open (sim_card_id, bytes, records)'::text;
    end if;
    if parts = '{}' then
        return next;
        return;
    end if;
    slice_usage := array_to_string(parts, ' union all ');
    if cardinality(parts) > 1 or is_unlimited then
        slice_usage := 'select sim_card_id, sum(bytes) as bytes, sum(records)::bigint as records from ('
            || slice_usage || ') as part group by 1 having sum(records) <> 0 or sum(bytes) <> 0';
    end if;
    slice_query := format(
        'select count(*), coalesce(sum(bytes), 0),'
        ' array_agg(sim_card_id) filter (where %1$s), array_agg(%2$s * bytes) filter (where %1$s)'
        || case when is_unlimited then ', array_agg(bytes), array_agg(records)' else ', null, null' end
        || ' from (%3$s offset 0) as usage',
        -- Multiplying a million numbers would cost more than comparing them.
        case direction when 1 then 'bytes <= $3' when -1 then 'bytes >= -$3' else 'true' end,
        direction, slice_usage
    );
    if not is_unlimited then
        -- Counting costs as much as adding up, so the records are read for the page only.
        slice_query := replace(slice_query, ', sum(records)::bigint as records', '');
        slice_query := replace(slice_query, ', count(*) - 2 * count(reverses) as records', '');
        slice_query := replace(
            slice_query, 'bytes, records from unnest($4, $5, $6) as open (sim_card_id, bytes, records)',
            'bytes from unnest($4, $5) as open (sim_card_id, bytes)'
        );
        slice_query := replace(slice_query, ' having sum(records) <> 0 or sum(bytes) <> 0', '');
    end if;
    while slice_start <= last_sim_card loop
        slice_end := case
            when cardinality(organizations) = 1 then last_sim_card + 1
            else slice_start + slice_size
        end;
        o_end := o;
        if open_sim_cards is not null then
            -- The first row of the next slice.
            o_end := width_bucket(slice_end - 1, open_sim_cards) + 1;
        end if;
        execute slice_query
        into slice_total, slice_bytes, slice_ids, slice_places, slice_sums, slice_counts
        using slice_start, slice_end, threshold,
            open_sim_cards[o : o_end - 1], open_bytes[o : o_end - 1], open_counts[o : o_end - 1];
        o := o_end;
        slice_start := slice_end;
        total := total + slice_total;
        all_bytes := all_bytes + slice_bytes;
        if slice_ids is null then
            continue;
        end if;
        ids := ids || slice_ids;
        places := places || slice_places;
        if is_unlimited then
            sums := sums || slice_sums;
            counts := counts || slice_counts;
            continue;
        end if;
        -- In the order of ICCIDs, every SIM card may be on the page.
        if direction = 0 then
            continue;
        end if;
        if after_place is not null then
            select coalesce(array_agg(id), '{}'), coalesce(array_agg(place), '{}') into ids, places
            from unnest(ids, places) as candidate (id, place)
            where place >= after_place;
        end if;
        if cardinality(ids) > rows_wanted then
            -- Those with the place of the last row that is wanted stay: the ICCID decides.
            select coalesce(
                (
                    select place
                    from unnest(places) as candidate (place)
                    where after_place is null or place > after_place
                    order by place
                    offset greatest(rows_wanted - 1, 0) limit 1
                ),
                'infinity'
            ) into threshold;
            select array_agg(id), array_agg(place) into ids, places
            from unnest(ids, places) as candidate (id, place)
            where place <= threshold;
        end if;
    end loop;
    if total = 0 then
        return next;
        return;
    end if;
    if is_unlimited then
        return query
        select total, all_bytes, listed.place, sim_cards.iccid, listed.bytes, listed.records
        from unnest(ids, places, sums, counts) as listed (id, place, bytes, records)
        join sim_cards using (id)
        where after_place is null or (listed.place, sim_cards.iccid) > (after_place, after_iccid)
        order by listed.place, sim_cards.iccid
        offset page_offset;
        if not found then
            return next;
        end if;
        return;
    end if;
    select array_agg(id) into page_ids
    from (
        select id
        from unnest(ids, places) as candidate (id, place)
        join sim_cards using (id)
        where after_place is null or (place, sim_cards.iccid) > (after_place, after_iccid)
        order by place, sim_cards.iccid
        limit page_limit offset page_offset
    ) as page;
    if page_ids is null then
        return next;
        return;
    end if;
    for i in 1 .. cardinality(parts) loop
        parts[i] := replace(parts[i], 'sim_card_id >= $1 and sim_card_id < $2', 'sim_card_id = any($1)');
        parts[i] := replace(
            parts[i], 'unnest($4, $5, $6) as open (sim_card_id, bytes, records)',
            'unnest($5, $6, $7) as open (sim_card_id, bytes, records) where sim_card_id = any($1)'
        );
    end loop;
    return query execute
        'select $2, $3, $4 * usage.bytes, sim_cards.iccid, usage.bytes, usage.records from ('
        ' select sim_card_id, sum(bytes) as bytes, sum(records)::bigint as records'
        ' from (' || array_to_string(parts, ' union all ') || ') as part group by 1'
        ') as usage join sim_cards on id = sim_card_id order by $4 * usage.bytes, sim_cards.iccid'
        using page_ids, total, all_bytes, direction, open_sim_cards, open_bytes, open_counts;
end
$$
