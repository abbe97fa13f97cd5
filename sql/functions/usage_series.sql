-- One page of the time series of a SIM card or an organization.
--
-- Parameters and columns: see sql/queries/usage_series.sql.
--
-- usage_in_pieces is planned with its time ranges on every call, so that it scans only the chunks
-- it needs. The statements around it do not depend on the ranges, so PL/pgSQL plans them once per
-- session. As a single statement, it was planned in full for every request, which took half of the
-- time: the daily series of one SIM card for a month took 0.76 ms, and takes 0.52 ms this way.

create or replace function usage_series(
    iccid text,
    organization text,
    visible integer[],
    record_starts timestamptz[],
    record_ends timestamptz[],
    hour_starts timestamptz[],
    hour_ends timestamptz[],
    day_starts timestamptz[],
    day_ends timestamptz[],
    bucket_starts timestamptz[],
    after_bucket integer,
    last_bucket integer,
    page_limit bigint,
    page_offset bigint,
    interval_start timestamptz,
    interval_end timestamptz
)
returns table (
    total bigint,
    all_bytes bigint,
    version bigint,
    inventory_version bigint,
    stale_from timestamptz,
    complete_through timestamptz,
    last_ingested_at timestamptz,
    number integer,
    bytes bigint,
    records bigint
)
language plpgsql
stable
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    sim_card integer;
    organizations integer[];
begin
    if usage_series.iccid is not null then
        organizations := visible;
        select id into sim_card
        from sim_cards
        where sim_cards.iccid = usage_series.iccid
            and (
                visible is null
                or exists (
                    select from sim_card_assignments where sim_card_id = sim_cards.id and organization_id = any(visible)
                )
            );
    else
        select array[id] into organizations
        from organizations
        where name = organization and (visible is null or id = any(visible));
    end if;
    if not found then
        return;
    end if;
    return query
    with series as (
        select
            width_bucket(instant, bucket_starts) as number,
            sum(bytes)::bigint as bytes,
            sum(records)::bigint as records
        from usage_in_pieces(
            sim_card, organizations, record_starts, record_ends, hour_starts, hour_ends, day_starts, day_ends
        )
        group by 1
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
    select totals.total, totals.all_bytes, freshness.*, page.number, page.bytes, page.records
    from totals
    cross join usage_freshness(interval_start, interval_end) as freshness
    left join page on true
    order by page.number;
end
$$
