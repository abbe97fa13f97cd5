-- The state of ingest: the position of each source, rejected records, and the hours to refresh.

-- The ledger: how much of each source is stored. A source's position changes in the transaction
-- that stores its records, so the two always agree.
--
-- kind      identity
-- file      length and hash of the first bytes
-- stream    the name given on the command line
-- run       a random number; the standard input of one run, or 'ended' for all that ended
-- kafka     cluster, topic, partition and consumer group
create table ingest_sources (
    id bigint generated always as identity primary key,
    kind text not null,
    identity text not null,
    -- How many bytes of a file the hash covers.
    head_bytes integer,
    -- The name it was last read under.
    name text not null,
    -- The offset of the next byte to read, decompressed, and the number of lines that end before
    -- it.
    position bigint not null default 0,
    line bigint not null default 0,
    -- BLAKE3 of all bytes before position; null while position is 0.
    prefix_hash bytea,
    -- How many batches have advanced this row, and the number of the run that stored the last one.
    batches bigint not null default 0,
    writer bigint not null default 0,
    -- Records read = stored + rejected.
    stored bigint not null default 0,
    rejected bigint not null default 0,
    first_seen timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    -- The time of the newest usage record stored from this source.
    newest_record_at timestamptz,
    unique (kind, identity)
);

-- Finds the files that were shorter than 4,096 bytes when first seen. There are few of them, and
-- each distinct length is one more hash to look up.
create index on ingest_sources (head_bytes) where head_bytes < 4096;
create index on ingest_sources (newest_record_at) where kind <> 'kafka';
create index on ingest_sources (updated_at);

-- Dead letters: records that could not be stored, written in the transaction of their batch.
create table rejected_records (
    id bigint generated always as identity primary key,
    rejected_at timestamptz not null default now(),
    source text not null,
    -- The offset of the record's first byte in its source.
    position bigint not null,
    -- Counted from 1.
    line bigint not null,
    -- A code of src/ingest/reject.rs.
    reason text not null,
    -- The invalid field, if the reason concerns one.
    field text,
    detail text not null,
    raw bytea not null,
    -- The version of simusage that rejected it.
    version text not null,
    -- Its row in ingest_sources; null where the source cannot be read again.
    source_id bigint,
    -- The format, and the header line of a CSV file, for parsing the record again.
    format text,
    header bytea
);

create index on rejected_records (source_id, position) where source_id is not null;

-- Hours with stored records that the aggregates do not include yet, written in the transaction that
-- stores the records. A refresh deletes the rows it has read, so hours of a process killed between
-- commit and refresh are refreshed by the next one.
create table stale_hours (
    id bigint generated always as identity primary key,
    start_at timestamptz not null,
    end_at timestamptz not null
);

-- For each UTC day, a number that grows whenever its sums have changed. A refresh sets it in the
-- statement that deletes the day's stale hours.
create sequence usage_version;

create table usage_versions (
    day timestamptz primary key,
    version bigint not null
);
