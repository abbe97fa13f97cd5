-- Sets the time span of new chunks of a hypertable or continuous aggregate.
--
-- Parameters:
--   $1 text    relation
--   $2 bigint  seconds
-- Columns: ignored

select set_chunk_time_interval($1::text::regclass, make_interval(secs => $2::bigint))
