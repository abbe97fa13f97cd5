-- The next rejected records that can be tried again, locked until the transaction ends. Those that another
-- replay has in hand are left to it.
--
-- A record that is cut, or of unknown format, cannot be read again. One at or behind its source's position is a
-- last line without a line end, which is read again with its source.
--
-- Parameters:
--   $1 bigint  the record behind which to go on
--   $2 bigint  how many at most
--   $3 bigint  how many bytes at most; a single record may be longer
-- Columns, by id:
--   id      bigint
--   source  text
--   line    bigint
--   format  text
--   header  bytea   null but for CSV
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
                and r.reason <> 'too-long'
                and (s.id is null or r.position < s.position)
            order by r.id
            limit $2
        ) as next
    ) as candidate
    where candidate.bytes_so_far - candidate.bytes < $3::bigint
))
order by rejected.id
for update of rejected skip locked
