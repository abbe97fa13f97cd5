-- Reads usage in several time ranges ("pieces"), each from usage records, the hourly or the daily
-- aggregate.
--
-- Parameters:
--   sim_card       integer        only this SIM card; null for all, using aggregates by organization
--   organizations  integer[]      only these organizations; null for all
--   record_starts  timestamptz[]  pieces to read from usage records: their starts
--   record_ends    timestamptz[]  and ends
--   hour_starts    timestamptz[]  pieces to read from the hourly aggregate
--   hour_ends      timestamptz[]
--   day_starts     timestamptz[]  pieces to read from the daily aggregate
--   day_ends       timestamptz[]
--
-- Columns:
--   instant  timestamptz  time of the record, or start of the aggregate's bucket
--   bytes    bigint
--   records  bigint
--
-- Each piece is a separate statement, planned with its own time range, so it scans only the one or
-- two chunks it needs. A join with a table of pieces would compare every piece with every chunk
-- between the first and the last: a year by day in a time zone with a half-hour offset took 6.7 s,
-- and takes 0.2 s this way.

create or replace function usage_in_pieces(
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
    conditions text := case when sim_card is null then '' else ' and sim_card_id = $3' end
        || case when organizations is null then '' else ' and organization_id = any($4)' end;
    from_records text := 'select time, bytes, 1::bigint from usage_records where time >= $1 and time < $2' || conditions;
    from_aggregate text := 'select bucket, bytes::bigint, records from %I where bucket >= $1 and bucket < $2' || conditions;
    from_hours text := format(from_aggregate, aggregate || '_hourly');
    from_days text := format(from_aggregate, aggregate || '_daily');
begin
    for piece in 1 .. cardinality(record_starts) loop
        return query execute from_records using record_starts[piece], record_ends[piece], sim_card, organizations;
    end loop;
    for piece in 1 .. cardinality(hour_starts) loop
        return query execute from_hours using hour_starts[piece], hour_ends[piece], sim_card, organizations;
    end loop;
    for piece in 1 .. cardinality(day_starts) loop
        return query execute from_days using day_starts[piece], day_ends[piece], sim_card, organizations;
    end loop;
end
$$
