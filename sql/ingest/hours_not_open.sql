-- Of some hours, those whose usage records several transactions cannot append to a chunk at once: there is none, or its own
-- row does not say yet what it is about to become. A chunk outside the columnstore can just be appended to. Where COPY goes
-- straight into the columnstore in this session, the chunk must be there, too (1 of TimescaleDB's status bits), and be in
-- no order (2).
--
-- Parameters:
--   $1 timestamptz[]  the hours
--
-- Columns:
--   hour       timestamptz  one of them
--   is_stored  boolean      whether there is a chunk

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
