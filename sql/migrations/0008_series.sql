-- The time series as functions, because plans are kept where they can be.
--
-- What reads usage is planned with its instants each time, which leaves it one or two chunks to look at. Whatever
-- surrounds it depends on no instant, and is planned once per session: as one statement, both were planned with each
-- request, which was half of its time. The daily series of a SIM card's month took 0.76 ms, and takes 0.52 ms so.

drop function usage_in_pieces;

-- What usage records and aggregates have in some pieces of time, of a SIM card, of organizations, or both; null for all.
-- Without a SIM card, the aggregates are those of organizations.
--
-- Each piece is a statement of its own, which reads the one or two chunks it falls into. As a join with the pieces, every
-- piece would be held against every chunk between the first and the last: a year by the day of a zone with half hours
-- took 6.7 s, and takes 0.2 s so.
create function usage_in_pieces(
    sim_card integer,
    organizations integer[],
    record_starts timestamptz[],
    record_ends timestamptz[],
    hour_starts timestamptz[],
    hour_ends timestamptz[],
    day_starts timestamptz[],
    day_ends timestamptz[]
)
returns table (instant timestamptz, bytes bigint, records bigint)
language plpgsql
stable
as $$
declare
    aggregate text := case when sim_card is null then 'organization_usage' else 'usage' end;
    narrowed text := case when sim_card is null then '' else ' and sim_card_id = $3' end
        || case when organizations is null then '' else ' and organization_id = any($4)' end;
    of_records text := 'select time, bytes, 1::bigint from usage_records where time >= $1 and time < $2' || narrowed;
    of_aggregate text := 'select bucket, bytes::bigint, records from %I where bucket >= $1 and bucket < $2' || narrowed;
    of_hours text := format(of_aggregate, aggregate || '_hourly');
    of_days text := format(of_aggregate, aggregate || '_daily');
begin
    for piece in 1 .. cardinality(record_starts) loop
        return query execute of_records using record_starts[piece], record_ends[piece], sim_card, organizations;
    end loop;
    for piece in 1 .. cardinality(hour_starts) loop
        return query execute of_hours using hour_starts[piece], hour_ends[piece], sim_card, organizations;
    end loop;
    for piece in 1 .. cardinality(day_starts) loop
        return query execute of_days using day_starts[piece], day_ends[piece], sim_card, organizations;
    end loop;
end
$$;

-- One page of the time series of a SIM card or of an organization. Parameters and columns are those of
-- sql/queries/usage_series.sql.
create function usage_series(
    iccid text,
    organization text,
    seen integer[],
    record_starts timestamptz[],
    record_ends timestamptz[],
    hour_starts timestamptz[],
    hour_ends timestamptz[],
    day_starts timestamptz[],
    day_ends timestamptz[],
    bucket_starts timestamptz[],
    behind integer,
    up_to integer,
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
        organizations := seen;
        select id into sim_card
        from sim_cards
        where sim_cards.iccid = usage_series.iccid
            and (
                seen is null
                or exists (
                    select from sim_card_assignments where sim_card_id = sim_cards.id and organization_id = any(seen)
                )
            );
    else
        select array[id] into organizations
        from organizations
        where name = organization and (seen is null or id = any(seen));
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
        where number > behind and number <= up_to
        order by number
        limit page_limit offset page_offset
    )
    select totals.total, totals.all_bytes, freshness.*, page.number, page.bytes, page.records
    from totals
    cross join usage_freshness(interval_start, interval_end) as freshness
    left join page on true
    order by page.number;
end
$$;
