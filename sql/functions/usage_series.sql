-- One page of the time series of a SIM card or an organization.
--
-- Parameters and columns: see sql/queries/usage_series.sql.
--
-- The statements around the parts do not depend on the interval, so PL/pgSQL plans them once per
-- session.

create or replace function usage_series(
    iccid text,
    organization text,
    visible integer[],
    record_edges timestamptz[],
    slot_edges timestamptz[],
    day_edges timestamptz[],
    bucket_starts timestamptz[],
    after_bucket integer,
    last_bucket integer,
    page_limit bigint,
    page_offset bigint,
    interval_start timestamptz,
    interval_end timestamptz,
    run_firsts bigint[],
    run_steps bigint[],
    run_counts bigint[]
)
returns table (
    total bigint,
    all_bytes bigint,
    version bigint,
    inventory_version bigint,
    complete_through timestamptz,
    last_ingested_at timestamptz,
    number integer,
    bytes bigint,
    records bigint
)
language plpgsql
stable
set plan_cache_mode = force_generic_plan
set max_parallel_workers_per_gather = 0
set jit = off
as $$
#variable_conflict use_column
declare
    sim_card integer;
    organization_id integer;
    parts text;
    bytes_of text := 'sum(bytes)';
    numbers integer[];
    sums numeric[];
    counts bigint[];
begin
    if usage_series.iccid is not null then
        select id into sim_card
        from sim_cards
        where sim_cards.iccid = usage_series.iccid and sees_sim_card(id, visible);
        if not found then
            return;
        end if;
        parts := sim_card_parts(sim_card, visible, record_edges, day_edges);
    else
        select id into organization_id
        from organizations
        where name = organization and (visible is null or id = any(visible));
        if not found then
            return;
        end if;
        parts := organization_parts(array[organization_id], record_edges, slot_edges, day_edges);
        bytes_of := 'coalesce(sum(bytes), 0) + coalesce(sum(large_bytes), 0)';
    end if;
    if parts is not null then
        if bucket_starts is null then
            select array_agg(to_timestamp(first + step * place) order by first, place) into bucket_starts
            from unnest(run_firsts, run_steps, run_counts) as run (first, step, count)
            cross join generate_series(0, count - 1) as place;
        end if;
        execute
            'select array_agg(number order by number), array_agg(bytes order by number), array_agg(records order by number)'
            ' from (select width_bucket(at, $1) as number, ' || bytes_of || ' as bytes, sum(records)::bigint as records'
            ' from (' || parts || ') as part group by 1 having sum(records) <> 0 or ' || bytes_of || ' <> 0) as series'
        into numbers, sums, counts
        using bucket_starts;
    end if;
    return query
    with series as (
        select number, bytes, records
        from unnest(numbers, sums, counts) as bucket (number, bytes, records)
    ),
    totals as (
        select count(*) as total, coalesce(sum(bytes), 0)::bigint as all_bytes from series
    ),
    page as (
        select number, bytes, records
        from series
        where number > after_bucket and number <= last_bucket
        order by number
        limit page_limit offset page_offset
    )
    select totals.total, totals.all_bytes, freshness.*, page.number, page.bytes::bigint, page.records
    from totals
    cross join usage_freshness(interval_start, interval_end) as freshness
    left join page on true
    order by page.number;
end
$$
