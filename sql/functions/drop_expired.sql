-- Drops the chunks of a level in which every record is older than the level keeps, and notes from
-- which day on the level is still complete, in one transaction.
--
-- Parameters:
--   expired_level  text         a level of usage_levels
--   at             timestamptz  now
-- Columns:
--   drop_expired  date  see usage_levels.kept_from; null if nothing was dropped

create or replace function drop_expired(expired_level text, at timestamptz) returns date
language plpgsql
volatile
as $$
declare
    register usage_levels;
    oldest date;
    chunk record;
    kept date;
begin
    select * into register from usage_levels where level = expired_level for update;
    if register.keep_days is null then
        return null;
    end if;
    oldest := (at at time zone 'UTC')::date - register.keep_days;
    for chunk in
        select chunks.range_start_integer as chunk_start, chunks.range_end_integer as chunk_end, max(posting_days.day) as last_day
        from timescaledb_information.chunks
        join (
            select hypertable_schema as schema, hypertable_name as name, hypertable_name::text as relation
            from timescaledb_information.hypertables
            where hypertable_schema = current_schema()
            union all
            select materialization_hypertable_schema, materialization_hypertable_name, view_name::text
            from timescaledb_information.continuous_aggregates
            where view_schema = current_schema()
        ) as hypertable on hypertable.schema = chunks.hypertable_schema and hypertable.name = chunks.hypertable_name
        join posting_days
            on posting_days.posting >= chunks.range_start_integer and posting_days.posting < chunks.range_end_integer
        where hypertable.relation = expired_level and chunks.range_end_integer <= register.closed_before
        group by 1, 2
        having max(posting_days.day) < oldest
    loop
        perform drop_chunks(
            expired_level::regclass, older_than => chunk.chunk_end, newer_than => chunk.chunk_start
        );
        kept := greatest(kept, chunk.last_day + 1);
    end loop;
    if kept is not null then
        -- Readers take the days of SIM cards from either of two aggregates, and ask about the second.
        update usage_levels set kept_from = greatest(kept_from, kept)
        where level = expired_level or (expired_level = 'sim_card_usage_merged' and level = 'sim_card_usage');
    end if;
    return kept;
end
$$
