-- Fails with SQLSTATE SU001 if an interval begins before the first day that a level still has in full.
-- The detail is that day.
--
-- Parameters:
--   needed_level    text         a level of usage_levels
--   interval_start  timestamptz  null: nothing is needed of it

create or replace function check_kept(needed_level text, interval_start timestamptz) returns void
language plpgsql
stable
as $$
declare
    kept date;
begin
    select kept_from into kept from usage_levels where level = needed_level;
    if interval_start < kept::timestamp at time zone 'UTC' then
        raise exception using
            errcode = 'SU001',
            message = format(
                '%s no longer has everything before %s: begin the interval there or later, or use wider buckets',
                needed_level, to_char(kept, 'YYYY-MM-DD')
            ),
            detail = to_char(kept, 'YYYY-MM-DD');
    end if;
end
$$
