-- Gives a source of which nothing is stored the longer beginning that it has by now.
--
-- Parameters:
--   $1 bigint   source
--   $2 text     identity
--   $3 integer  length of the beginning

update ingest_sources set identity = $2, head_bytes = $3
where id = $1 and position = 0
