-- Moves a source behind a batch, if it is where the batch began: a compare-and-swap. Anything but one row means
-- that another process has stored this part of the source.
--
-- Parameters:
--   $1  bigint       source
--   $2  bigint       position before the batch
--   $3  bigint       batches before this one
--   $4  bigint       position behind the batch
--   $5  bigint       lines that end before that
--   $6  bytea        BLAKE3 of all bytes before that
--   $7  text         name
--   $8  bigint       number of the run
--   $9  bigint       records stored
--   $10 bigint       records rejected, less those that were read again
--   $11 timestamptz  time of the newest record stored; null where there is none

update ingest_sources
set position = $4,
    line = $5,
    prefix_hash = $6,
    name = $7,
    writer = $8,
    batches = batches + 1,
    stored = stored + $9,
    rejected = rejected + $10,
    newest_record_at = greatest(newest_record_at, $11),
    updated_at = now()
where id = $1 and position = $2 and batches = $3
