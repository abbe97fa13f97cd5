-- Which tables of records have no chunk for a period yet.
--
-- Parameters:
--   $1 bigint   how many periods it comes after the current one
-- Columns, always one row:
--   period  bigint   its first posting
--   bulk    boolean  usage_records has none
--   recent  boolean  usage_records_recent has none

select
    wanted.period,
    coalesce(bool_and(chunks.chunk_name is null or chunks.hypertable_name <> 'usage_records'), true) as bulk,
    coalesce(bool_and(chunks.chunk_name is null or chunks.hypertable_name <> 'usage_records_recent'), true) as recent
from (
    select ((last_value >> 40) + $1) << 40 as period from posting_numbers
) as wanted
left join timescaledb_information.chunks as chunks
    on chunks.hypertable_schema = current_schema()
    and chunks.hypertable_name in ('usage_records', 'usage_records_recent')
    and wanted.period >= chunks.range_start_integer
    and wanted.period < chunks.range_end_integer
group by wanted.period
