-- The lengths of files that were shorter than 4,096 bytes when first seen. All other files are
-- identified by their first 4,096 bytes.
--
-- Parameters: none
-- Columns:
--   head_bytes  integer

select distinct head_bytes from ingest_sources where head_bytes < 4096
