-- Finds a source by its identity.
--
-- Parameters:
--   $1 text  kind
--   $2 text  identity
-- Columns: see find_file.sql

select id, head_bytes, name, position, line, prefix_hash, batches, updated_at
from ingest_sources
where kind = $1 and identity = $2
