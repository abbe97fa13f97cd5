-- Dead letters: records that could not be stored, written in the transaction of the batch they came with.
--
-- reason is a code of src/ingest/reject.rs; field is the record's field at fault, where there is one;
-- line counts from 1 and position is the byte offset of the record's first byte in its source.

create table rejected_records (
    id bigint generated always as identity primary key,
    rejected_at timestamptz not null default now(),
    source text not null,
    position bigint not null,
    line bigint not null,
    reason text not null,
    field text,
    detail text not null,
    raw bytea not null,
    version text not null
);
