-- Sets a source of which every record was rejected back to its start, and deletes its rejected
-- records. Updates nothing if any record is stored, if some of the rejected ones are gone, or if
-- another process has advanced the source.
--
-- Parameters:
--   $1 bigint  id of the source
--   $2 bigint  position
--   $3 bigint  number of batches

with locked as (
    select from rejected_records where source_id = $1 for update
),
source as (
    select id
    from ingest_sources
    where id = $1 and position = $2 and batches = $3
        and stored = 0 and rejected = (select count(*) from locked)
    for update
),
deleted as (
    delete from rejected_records using source where rejected_records.source_id = source.id
)
update ingest_sources
set position = 0,
    line = 0,
    prefix_hash = null,
    batches = batches + 1,
    rejected = 0
from source
where ingest_sources.id = source.id
