-- Finds a source by its identity.
--
-- Parameters:
--   $1 text  kind
--   $2 text  identity
-- Columns; no row if there is none:
--   id           bigint
--   name         text
--   position     bigint
--   line         bigint
--   prefix_hash  bytea        null while nothing is stored
--   batches      bigint
--   stored       bigint
--   rejected     bigint
--   updated_at   timestamptz

select id, name, position, line, prefix_hash, batches, stored, rejected, updated_at
from ingest_sources
where kind = $1 and identity = $2
