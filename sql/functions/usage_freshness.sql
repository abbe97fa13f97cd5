-- How fresh the usage of an interval is. Does not read the usage itself.
--
-- Parameters:
--   interval_start  timestamptz
--   interval_end    timestamptz
--
-- Columns, always one row:
--   version            bigint       differs whenever the usage in the interval's days does, or what
--                                   retention has dropped of it; 0 if there never was any
--   inventory_version  bigint       differs whenever the inventory does
--   complete_through   timestamptz  every feed that is expected and live is stored up to this time;
--                                   null: one of them has no records: see sql/functions/feeds.sql
--   last_ingested_at   timestamptz  when ingest last advanced a source
--
-- Versions add up random numbers, one for each day of a batch, so they also differ between what was
-- stored before and after a backup was restored.
--
-- PL/pgSQL caches the plan for the session. Inlined into the calling statement, these subqueries
-- would be planned for every request, which takes longer than running them. The plan is generic
-- even if the session forces custom plans: none of these tables has chunks, so the plan does not
-- depend on the interval. The function is stable, so it uses the snapshot of the calling statement.

create or replace function usage_freshness(interval_start timestamptz, interval_end timestamptz)
returns table (
    version bigint,
    inventory_version bigint,
    complete_through timestamptz,
    last_ingested_at timestamptz
)
language plpgsql
stable
rows 1
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
begin
    return query
    select
        mod(
            (
                select coalesce(sum(posting_days.version), 0)
                from posting_days
                where day >= (interval_start at time zone 'UTC')::date
                    and day <= ((interval_end - interval '1 microsecond') at time zone 'UTC')::date
            )
            + (
                select coalesce(sum(hashtextextended(level, kept_from - date '1970-01-01')), 0)
                from usage_levels
                where kept_from > (interval_start at time zone 'UTC')::date
            ),
            4611686018427387904
        )::bigint,
        (select inventory_version.version from inventory_version),
        (
            select case when count(*) = count(feeds.complete_through) then min(feeds.complete_through) end
            from feeds(true)
            where is_expected and is_live
        ),
        (select max(updated_at) from ingest_sources);
end
$$
