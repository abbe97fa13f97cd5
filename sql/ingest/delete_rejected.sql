-- Deletes rejected records that have now been stored, and moves them in the counts of their sources.
--
-- Parameters:
--   $1 bigint[]  ids of rejected records
-- Columns:
--   count  bigint  how many there were

with deleted as (
    delete from rejected_records where id = any($1::bigint[]) returning source_id
),
moved as (
    update ingest_sources as source
    set stored = source.stored + of_source.records,
        rejected = source.rejected - of_source.records
    from (
        select source_id, count(*) as records from deleted group by source_id
    ) as of_source
    where source.id = of_source.source_id
)
select count(*) as count from deleted
