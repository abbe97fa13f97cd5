-- Advances a source past a batch if it is still where the batch starts: a compare-and-swap. No row
-- is updated if another process has stored this part of the source.
--
-- Parameters:
--   $1  bigint       id of the source
--   $2  bigint       position before the batch
--   $3  bigint       number of batches before this one
--   $4  bigint       position after the batch
--   $5  bigint       number of lines that end before $4
--   $6  bytea        BLAKE3 of all bytes before $4
--   $7  text         name
--   $8  bigint       number of the run
--   $9  bigint       records stored
--   $10 bigint       records rejected, minus those of an earlier run that were read again
--   $11 timestamptz  time of the newest record stored; null if none was
--
-- A record may be dated in the future, but nothing is complete beyond now.

update ingest_sources
set position = $4,
    line = $5,
    prefix_hash = $6,
    name = $7,
    writer = $8,
    batches = batches + 1,
    stored = stored + $9,
    rejected = rejected + $10,
    newest_record_at = greatest(newest_record_at, case when $11 > now() then now() else $11 end),
    updated_at = now()
where id = $1 and position = $2 and batches = $3
