-- Selects the next rejected records to replay, and locks them until the transaction ends. Skips
-- records that another replay has locked.
--
-- Truncated records and records of unknown format cannot be parsed again. An unfinished line may be
-- part of another record. A record at or after its source's position is a last line without a line end,
-- which is read again with its source.
--
-- Parameters:
--   $1 bigint  id after which to continue
--   $2 bigint  maximum number of records
--   $3 bigint  maximum number of bytes; a single record may be longer
-- Columns, ordered by id:
--   id      bigint
--   source  text
--   line    bigint
--   format  text
--   header  bytea   null unless the format is CSV
--   raw     bytea

select rejected.id, rejected.source, rejected.line, rejected.format, rejected.header, rejected.raw
from rejected_records as rejected
where rejected.id = any(array(
    select candidate.id
    from (
        select next.id, next.bytes, sum(next.bytes) over (order by next.id) as bytes_so_far
        from (
            select r.id, octet_length(r.raw)::bigint as bytes
            from rejected_records as r
            left join ingest_sources as s on s.id = r.source_id
            where r.id > $1
                and r.format is not null
                and r.reason not in ('too-long', 'unfinished-line')
                and (s.id is null or r.position < s.position)
            order by r.id
            limit $2
        ) as next
    ) as candidate
    where candidate.bytes_so_far - candidate.bytes < $3::bigint
))
order by rejected.id
for update of rejected skip locked
