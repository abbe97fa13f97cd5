-- Removes the source of a run that has ended, and those of runs that were interrupted more than 30
-- days ago. Keeps their newest times in a single row, because usage_freshness reads them.
--
-- Parameters:
--   $1 bigint  id of the source

with removed as (
    delete from ingest_sources
    where kind = 'run' and identity <> 'ended' and (id = $1 or updated_at < now() - interval '30 days')
    returning newest_record_at, updated_at, batches
)
insert into ingest_sources (kind, identity, name, newest_record_at, updated_at, batches)
select 'run', 'ended', 'runs that ended', max(newest_record_at), max(updated_at), 1
from removed
where batches > 0
having count(*) > 0
on conflict (kind, identity) do update
set newest_record_at = greatest(ingest_sources.newest_record_at, excluded.newest_record_at),
    updated_at = greatest(ingest_sources.updated_at, excluded.updated_at)
