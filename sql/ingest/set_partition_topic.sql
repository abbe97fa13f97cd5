-- Sets the identifier of a partition's topic, unless it has one.
--
-- Parameters:
--   $1 bigint  id of the source
--   $2 text    topic_id

update ingest_sources set topic_id = $2 where id = $1 and topic_id is null
