-- Selects the hours whose chunk does not accept concurrent appends. Appends to a chunk are
-- concurrent if none of them has to update the chunk's status. That is so for a chunk outside the
-- columnstore, and, where this session's COPY writes directly to the columnstore, for a chunk that
-- is already compressed (bit 1 of TimescaleDB's chunk status) and unordered (bit 2).
--
-- Parameters:
--   $1 timestamptz[]  hours
-- Columns:
--   hour       timestamptz  one of $1
--   is_stored  boolean      whether its chunk exists

select hour, chunks.chunk_name is not null as is_stored
from unnest($1::timestamptz[]) as hour
left join timescaledb_information.chunks as chunks
    on chunks.hypertable_schema = current_schema()
    and chunks.hypertable_name = 'usage_records'
    and hour >= chunks.range_start
    and hour < chunks.range_end
where chunks.chunk_name is null
    or case
        when coalesce(current_setting('timescaledb.enable_direct_compress_copy', true)::boolean, false)
        then _timescaledb_functions.chunk_status(format('%I.%I', chunk_schema, chunk_name)::regclass) & 3 <> 3
        else chunks.is_compressed
    end
