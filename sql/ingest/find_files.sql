-- Finds the files that may be the same as a given one, or share records with it: those with the same
-- identity or path, and those with records in common. Most records in common first. Of a file that
-- another process is ingesting, all records are compared, also those that are not stored yet.
--
-- Parameters:
--   $1 text      identity
--   $2 bigint    hash of the path
--   $3 bigint[]  hashes of records
--   $4 bigint    maximum number of files with records in common, and of those with the same path
-- Columns:
--   id             bigint
--   name           text
--   position       bigint
--   line           bigint
--   prefix_hash    bytea        null while nothing is stored
--   batches        bigint
--   stored         bigint
--   rejected       bigint
--   updated_at     timestamptz
--   digests        bytea        null if the file was not read to its end
--   end_lines      bigint[]     null likewise
--   end_digests    bigint[]     null likewise
--   has_same_path  boolean
--   is_claimed     boolean      whether another process is ingesting it
--   found_hashes   bigint[]     the hashes of $3 that it has; null if it has none
--   found_lines    bigint[]     their lines

with claimed as materialized (
    -- See claim_source.sql.
    select -((classid::bigint << 32) | objid::bigint) as source_id
    from pg_locks
    where locktype = 'advisory'
        and database = (select oid from pg_database where datname = current_database())
        and classid::bigint >= 2147483648
        and objsubid = 1
        and granted
        and pid <> pg_backend_pid()
),
found as (
    select sample.source_id, array_agg(sample.hash) as hashes, array_agg(sample.line) as lines
    from unnest($3::bigint[]) as wanted (hash)
    join ingest_samples as sample on sample.hash = wanted.hash
    join ingest_sources as source on source.id = sample.source_id
    -- A last line without a line end may be stored and is not counted.
    where source.position > 0 and sample.line <= source.line + 1
        or source.id in (select source_id from claimed)
    group by sample.source_id
    order by count(*) desc, sample.source_id
    limit $4
)
select source.id, source.name, source.position, source.line, source.prefix_hash, source.batches,
    source.stored, source.rejected, source.updated_at, fingerprint.digests, fingerprint.end_lines,
    fingerprint.end_digests, coalesce(fingerprint.path = $2, false) as has_same_path,
    source.id in (select source_id from claimed) as is_claimed,
    found.hashes as found_hashes, found.lines as found_lines
from ingest_sources as source
left join found on found.source_id = source.id
left join ingest_fingerprints as fingerprint on fingerprint.source_id = source.id
where source.id in (
    select source_id from found
    union
    select id from ingest_sources where kind = 'file' and identity = $1
    union
    (
        select same_path.source_id
        from ingest_fingerprints as same_path
        join ingest_sources on ingest_sources.id = same_path.source_id
        where same_path.path = $2
        order by updated_at desc
        limit $4
    )
)
order by cardinality(found.hashes) desc nulls last, source.id
