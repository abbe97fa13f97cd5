-- The usage of organizations, in buckets of equal width: for Grafana and other SQL clients.
--
--   select * from usage_by_organization('2026-03-01Z', '2026-04-01Z', '1 day')
--
-- Parameters:
--   interval_start  timestamptz  null for the first record
--   interval_end    timestamptz  exclusive; null for the last record
--   every           interval     width of the buckets, which are those of time_bucket: in UTC, and
--                                weeks start on Monday
--   names           text[]       only these organizations; null for all
-- Columns; buckets without usage have no row:
--   bucket        timestamptz  start of the bucket; the interval may cut the first and the last one
--   organization  text
--   bytes         numeric
--   records       bigint
--
-- Whatever cuts a quarter hour is read from the records, and takes longer. Fails with SQLSTATE SU001
-- if retention has dropped something that is needed: see check_kept.

create or replace function usage_by_organization(
    interval_start timestamptz,
    interval_end timestamptz,
    every interval,
    names text[] default null
)
returns table (bucket timestamptz, organization text, bytes numeric, records bigint)
language plpgsql
stable
set max_parallel_workers_per_gather = 0
set jit = off
as $$
#variable_conflict use_column
declare
    quarter constant interval := '15 minutes';
    day constant interval := '24 hours';
    origin constant timestamptz := '2000-01-01 00:00+00';
    -- ingest rejects records outside of this.
    series_start timestamptz := greatest(interval_start, '1970-01-01 00:00+00');
    series_end timestamptz := least(interval_end, '2200-01-01 00:00+00');
    -- The first whole quarter hour and day, and the ends of the last ones.
    slots_start timestamptz := date_bin(quarter, series_start - interval '1 us', origin) + quarter;
    days_start timestamptz := date_bin(day, series_start - interval '1 us', origin) + day;
    days_end timestamptz := date_bin(day, series_end, origin);
    slots_end timestamptz := date_bin(quarter, series_end, origin);
    -- In seconds, apart from days, months and years, which all begin with a day.
    remainder numeric := extract(epoch from every - date_trunc('day', every));
    organizations integer[];
    record_edges timestamptz[] := '{}';
    slot_edges timestamptz[] := '{}';
    day_edges timestamptz[] := '{}';
    parts text;
begin
    if series_start >= series_end then
        return;
    end if;
    if names is not null then
        select coalesce(array_agg(id), '{}') into organizations from organizations where name = any(names);
    end if;
    if remainder % 900 <> 0 or slots_start >= slots_end then
        slots_start := series_end;
        slots_end := series_end;
    end if;
    if remainder % 86400 <> 0 or days_start >= days_end then
        days_start := slots_end;
        days_end := slots_end;
    end if;
    if series_start < slots_start then
        record_edges := array[series_start, slots_start];
    end if;
    if slots_start < days_start then
        slot_edges := array[slots_start, days_start];
    end if;
    if days_start < days_end then
        day_edges := array[days_start, days_end];
    end if;
    if days_end < slots_end then
        slot_edges := slot_edges || array[days_end, slots_end];
    end if;
    if slots_end < series_end then
        record_edges := record_edges || array[slots_end, series_end];
    end if;
    parts := organization_parts(organizations, record_edges, slot_edges, day_edges);
    if parts is null then
        return;
    end if;
    return query execute
        'select usage.bucket, organizations.name, usage.bytes, usage.records'
        ' from ('
        ' select time_bucket($1, at) as bucket, organization_id,'
        ' coalesce(sum(bytes), 0) + coalesce(sum(large_bytes), 0) as bytes, sum(records)::bigint as records'
        ' from (' || parts || ') as part group by 1, 2'
        ') as usage'
        ' join organizations on organizations.id = usage.organization_id'
        ' where usage.records <> 0 or usage.bytes <> 0'
        using every;
end
$$
