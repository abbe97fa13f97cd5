-- The organizations with usage in an interval.
--
-- Parameters: see organization_parts
-- Columns:
--   organization_id  integer
--   bytes            numeric
--   records          bigint

create or replace function organization_list(
    organizations integer[],
    record_edges timestamptz[],
    slot_edges timestamptz[],
    day_edges timestamptz[]
)
returns table (organization_id integer, bytes numeric, records bigint)
language plpgsql
stable
set max_parallel_workers_per_gather = 0
set jit = off
as $$
declare
    parts text := organization_parts(organizations, record_edges, slot_edges, day_edges);
begin
    if parts is not null then
        return query execute
            'select organization_id, coalesce(sum(bytes), 0) + coalesce(sum(large_bytes), 0), sum(records)::bigint'
            ' from (' || parts || ') as part group by 1'
            ' having sum(records) <> 0 or coalesce(sum(bytes), 0) + coalesce(sum(large_bytes), 0) <> 0';
    end if;
end
$$
