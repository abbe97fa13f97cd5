-- Finds records in all files together, as far as they are stored.
--
-- Parameters:
--   $1 bigint[]  hashes of records
-- Columns, a row for each record that is found:
--   hash   bigint
--   line   bigint  the lowest line in which it is
--   files  bigint  in how many files it is

select sample.hash, min(sample.line) as line, count(*) as files
from unnest($1::bigint[]) as wanted (hash)
join ingest_samples as sample on sample.hash = wanted.hash
join ingest_sources as source on source.id = sample.source_id
where source.position > 0 and sample.line <= source.line + 1
group by sample.hash
