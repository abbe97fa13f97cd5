-- Sets the fingerprint of a file. Keeps the ends that earlier runs found, up to 1,000.
--
-- Parameters:
--   $1 bigint    id of the source
--   $2 bytea     digests
--   $3 bigint    number of lines
--   $4 bigint    hash of all lines
--   $5 bigint[]  hashes of the samples, sorted, so that concurrent runs do not wait for each other
--   $6 bigint[]  lines of the samples
--   $7 bigint    hash of the path

with samples as (
    insert into ingest_samples (hash, source_id, line)
    select hash, $1, line from unnest($5::bigint[], $6::bigint[]) as sample (hash, line)
    on conflict do nothing
)
insert into ingest_fingerprints as known
values ($1, $2, array[$3::bigint], array[$4::bigint], $7)
on conflict (source_id) do update
set digests = excluded.digests,
    end_lines = case
        when known.end_lines[1] = $3 and known.end_digests[1] = $4 then known.end_lines
        else (excluded.end_lines || known.end_lines)[:1000]
    end,
    end_digests = case
        when known.end_lines[1] = $3 and known.end_digests[1] = $4 then known.end_digests
        else (excluded.end_digests || known.end_digests)[:1000]
    end,
    path = excluded.path
where known.end_lines[1] <> $3 or known.end_digests[1] <> $4 or known.path <> $7
