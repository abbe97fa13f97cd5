-- Moves a partition to an offset, without storing a message: its messages were deleted or replaced.
-- Updates nothing if another process has advanced the source. Rejected messages are detached,
-- because their offsets may mean other messages from now on.
--
-- Parameters:
--   $1 bigint  id of the source
--   $2 bigint  position
--   $3 bigint  number of batches
--   $4 bigint  new position
--   $5 text    identifier of the topic; null where it is unknown
-- Columns:
--   moved  boolean

with moved as (
    update ingest_sources
    set position = $4,
        line = $4,
        prefix_hash = null,
        topic_id = coalesce($5, topic_id),
        batches = batches + 1
    where id = $1 and position = $2 and batches = $3
    returning id
),
detached as (
    update rejected_records
    set source_id = null
    from moved
    where source_id = moved.id
)
select exists (select from moved) as moved
