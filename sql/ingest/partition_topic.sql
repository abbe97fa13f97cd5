-- Reads the identifier of a partition's topic.
--
-- Parameters:
--   $1 bigint  id of the source
-- Columns; no row if the source was removed:
--   topic_id  text  null where it is unknown

select topic_id from ingest_sources where id = $1
