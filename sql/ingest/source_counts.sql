-- Counts the records of a source.
--
-- Parameters:
--   $1 bigint  id of the source
-- Columns; no row if the source was removed:
--   stored    bigint
--   rejected  bigint

select stored, rejected from ingest_sources where id = $1
