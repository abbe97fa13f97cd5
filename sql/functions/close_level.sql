-- Records that a level contains everything before a boundary, and folds the days of these postings
-- into one row for each period and day.
--
-- Parameters:
--   closed_level  text    a level of usage_levels
--   boundary      bigint  a posting
-- Columns:
--   close_level  boolean  false if the level was closed up to there already
--
-- Only one call at a time folds. Otherwise, a row that one has just written would be invisible to
-- the other's DELETE, and keep the flags that it was written with.

create or replace function close_level(closed_level text, boundary bigint) returns boolean
language plpgsql
volatile
as $$
declare
    before bigint;
begin
    select closed_before into before from usage_levels where level = closed_level for update;
    if before >= boundary then
        return false;
    end if;
    update usage_levels set closed_before = boundary where level = closed_level;
    insert into posting_closings (closed_before) values (boundary) on conflict do nothing;
    perform pg_advisory_xact_lock(4611686018427387903);
    with folded as (
        delete from posting_days
        where posting < boundary and posting >= (before >> 40) << 40
        returning *
    )
    insert into posting_days (day, posting, version, records, is_large, is_detailed, is_recent)
    select
        day,
        (posting >> 40) << 40,
        mod(sum(version), 4611686018427387904),
        sum(records),
        bool_or(is_large),
        bool_or(is_detailed),
        is_recent and closed_level <> 'usage_records'
    from folded
    group by day, posting >> 40, is_recent and closed_level <> 'usage_records';
    return true;
end
$$
