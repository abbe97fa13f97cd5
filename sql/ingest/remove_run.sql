-- Removes the source of a run that is over, and those of runs that ended without doing so long ago. How far all of
-- them came stays in one row.
--
-- Parameters:
--   $1 bigint  source

with removed as (
    delete from ingest_sources
    where kind = 'run' and identity <> 'ended' and (id = $1 or updated_at < now() - interval '30 days')
    returning newest_record_at, updated_at
)
insert into ingest_sources (kind, identity, name, newest_record_at, updated_at)
select 'run', 'ended', 'runs that ended', max(newest_record_at), max(updated_at)
from removed
having count(*) > 0
on conflict (kind, identity) do update
set newest_record_at = greatest(ingest_sources.newest_record_at, excluded.newest_record_at),
    updated_at = greatest(ingest_sources.updated_at, excluded.updated_at)
