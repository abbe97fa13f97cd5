-- Reads the position of a source and locks it. Waits for a transaction that is advancing it, so the
-- answer is final even if a connection was lost during its commit.
--
-- Parameters:
--   $1 bigint  id of the source
-- Columns; no row if the source was removed:
--   position  bigint
--   batches   bigint
--   writer    bigint

select position, batches, writer from ingest_sources where id = $1 for update
