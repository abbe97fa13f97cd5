-- The lengths of the beginnings that short files are known by. A file that was longer when it was first seen is
-- known by the whole 4,096 bytes.
--
-- Parameters: none
-- Columns:
--   head_bytes  integer

select distinct head_bytes from ingest_sources where head_bytes < 4096
