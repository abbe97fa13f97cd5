-- Removes the source of a run that is over, and those of runs that ended without doing so long ago.
--
-- Parameters:
--   $1 bigint  source

delete from ingest_sources
where kind = 'run' and (id = $1 or updated_at < now() - interval '30 days')
