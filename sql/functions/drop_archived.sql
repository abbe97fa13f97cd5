-- Drops the row store's periods that have been archived for a minute, unless a session has an older
-- snapshot.
--
-- Columns:
--   drop_archived  text  a dropped chunk

create or replace function drop_archived() returns setof text
language plpgsql
volatile
as $$
declare
    unused timestamptz := unused_since();
    safe bigint := (
        select max(closings.closed_before)
        from posting_closings as closings
        where closings.closed_before & 1099511627775 = 0
            and closings.closed_before <= (select closed_before from usage_levels where level = 'usage_records')
            and closings.closed_at < unused
    );
    old_chunks boolean := exists (
        select
        from timescaledb_information.chunks
        where hypertable_schema = current_schema()
            and hypertable_name = 'usage_records_recent'
            and range_end_integer <= safe
    );
begin
    if old_chunks then
        return query select drop_chunks('organization_usage_recent', older_than => safe);
        return query select drop_chunks('usage_records_recent', older_than => safe);
    end if;
end
$$
