-- All feeds, and how far each is stored.
--
-- Columns:
--   feed              text
--   complete_through  timestamptz  the time of its newest record, but not after it was stored; for a
--                                  topic, that of its slowest partition; null: nothing is stored yet
--   last_ingested_at  timestamptz  when ingest last advanced one of its sources; null: never
--   is_expected       boolean      [feeds] names it, or names none
--   is_live           boolean      it has not been silent for too long when the last feed was stored
--
-- Usage is complete up to the minimum of the feeds that are expected and live; if one of them has only
-- rejected records, it is not known. Silence is measured from the last ingest of any expected feed, not from
-- now, so that answers depend on what is stored only. Sources that were never advanced do not count.
--
-- If feeds are named, only these are looked up; otherwise there is a lookup for each name.

create or replace function feeds(only_expected boolean)
returns table (
    feed text,
    complete_through timestamptz,
    last_ingested_at timestamptz,
    is_expected boolean,
    is_live boolean
)
language plpgsql
stable
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    has_names boolean := exists (select from feed_patterns where number > 0);
begin
    return query
    with recursive names as (
        (select min(feed) as feed from ingest_sources where not (only_expected and has_names))
        union all
        select (select min(ingest_sources.feed) from ingest_sources where ingest_sources.feed > names.feed)
        from names
        where names.feed is not null
    ),
    known as (
        select feed from names where feed is not null
        union
        select feed from feed_patterns where number > 0
    ),
    last as (
        select
            known.feed,
            (
                select max(updated_at)
                from ingest_sources
                where ingest_sources.feed = known.feed and batches > 0
            ) as ingested_at,
            not has_names or patterns.number > 0 as is_expected,
            patterns.silent_after
        from known
        join feed_patterns as patterns
            on patterns.number = coalesce((select number from feed_patterns as own where own.feed = known.feed), 0)
    ),
    newest as (
        select
            last.*,
            least(
                (
                    select max(newest_record_at)
                    from ingest_sources
                    where ingest_sources.feed = last.feed and kind <> 'kafka'
                ),
                (
                    select min(newest_record_at)
                    from ingest_sources
                    where ingest_sources.feed = last.feed and kind = 'kafka'
                        and (silent_after is null or updated_at >= last.ingested_at - silent_after)
                )
            ) as record_at
        from last
    )
    select
        feed,
        record_at,
        ingested_at,
        is_expected,
        coalesce(
            silent_after is null and ingested_at is not null
            or ingested_at >= max(ingested_at) filter (where is_expected) over () - silent_after,
            false
        )
    from newest;
end
$$
