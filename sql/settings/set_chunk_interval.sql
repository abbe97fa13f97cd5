-- Sets the time span of the chunks that a hypertable or continuous aggregate makes from now on.
--
-- Parameters:
--   $1 text    relation
--   $2 bigint  seconds
-- Columns: none of interest

select set_chunk_time_interval($1::text::regclass, make_interval(secs => $2::bigint))
