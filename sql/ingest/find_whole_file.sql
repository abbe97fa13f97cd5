-- Finds a file that had exactly the given lines when it was last read, all of which are stored or
-- rejected, unless every record was rejected.
--
-- Parameters:
--   $1 bigint  number of lines
--   $2 bigint  digest of all lines
-- Columns; no row if there is none: see find_source.sql

select source.id, source.name, source.position, source.line, source.prefix_hash, source.batches,
    source.stored, source.rejected, source.updated_at
from ingest_fingerprints as fingerprint
join ingest_sources as source on source.id = fingerprint.source_id
where fingerprint.end_digests[1] = $2
    and fingerprint.end_lines[1] = $1
    and source.line >= $1
    and source.stored > 0
limit 1
