-- Of some hours, those whose usage records cannot just be appended to a chunk: there is none, or it lies in the
-- columnstore.
--
-- Parameters:
--   $1 timestamptz[]  the hours
--
-- Columns:
--   hour       timestamptz  one of them
--   is_stored  boolean      whether there is a chunk, in the columnstore

select hour, chunks.chunk_name is not null as is_stored
from unnest($1::timestamptz[]) as hour
left join timescaledb_information.chunks as chunks
    on chunks.hypertable_schema = current_schema()
    and chunks.hypertable_name = 'usage_records'
    and hour >= chunks.range_start
    and hour < chunks.range_end
where chunks.chunk_name is null or chunks.is_compressed
