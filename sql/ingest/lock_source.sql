-- How far a source is. Waits for a transaction that is about to move it, so the answer is final also where a
-- connection was lost during its commit.
--
-- Parameters:
--   $1 bigint  source
-- Columns; no row where it was removed:
--   position  bigint
--   batches   bigint
--   writer    bigint

select position, batches, writer from ingest_sources where id = $1 for update
