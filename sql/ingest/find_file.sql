-- Finds a file among the sources by the hashes of its first bytes. The longest match wins.
--
-- Parameters:
--   $1 text[]  identities
-- Columns; no row if the file is new:
--   id           bigint
--   head_bytes   integer
--   name         text
--   position     bigint
--   line         bigint
--   prefix_hash  bytea        null while nothing is stored
--   batches      bigint
--   updated_at   timestamptz

select id, head_bytes, name, position, line, prefix_hash, batches, updated_at
from ingest_sources
where kind = 'file' and identity = any($1::text[])
order by head_bytes desc
limit 1
