-- Changes the identity of a file that has grown since it was first seen. Updates nothing if any of
-- the file is stored.
--
-- Parameters:
--   $1 bigint   id of the source
--   $2 text     identity
--   $3 integer  how many bytes of the file the identity covers

update ingest_sources set identity = $2, head_bytes = $3
where id = $1 and position = 0
