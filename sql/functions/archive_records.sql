-- Copies what streams posted before a boundary to the columnstore, and makes readers take it from
-- there. Does nothing if that has been done.
--
-- Parameters:
--   boundary  bigint  the first posting of a period
-- Columns:
--   archive_records  boolean  see close_level

create or replace function archive_records(boundary bigint) returns boolean
language plpgsql
volatile
as $$
declare
    before bigint;
begin
    select closed_before into before from usage_levels where level = 'usage_records' for update;
    if before >= boundary then
        return false;
    end if;
    -- With constants, so that only these chunks are planned.
    execute format(
        'insert into usage_records select * from usage_records_recent where posting >= %s and posting < %s',
        before, boundary
    );
    -- Readers no longer take pages from there.
    delete from posting_closings where closed_before < boundary and closed_before & 1099511627775 <> 0;
    return close_level('usage_records', boundary);
end
$$
