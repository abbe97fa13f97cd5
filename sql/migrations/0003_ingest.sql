-- The state of ingest: the position of each source, and rejected records.

-- The ledger: how much of each source is stored. A source's position changes in the transaction
-- that stores its records, so the two always agree.
--
-- kind      identity
-- file      number and hash of its lines when first seen
-- stream    the name given on the command line
-- run       a random number; the standard input of one run, or 'ended' for all that ended
-- kafka     cluster, topic, partition and consumer group
create table ingest_sources (
    id bigint generated always as identity primary key,
    kind text not null,
    identity text not null,
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
    -- The time of the newest usage record stored from this source, but not after it was stored.
    newest_record_at timestamptz,
    unique (kind, identity)
);

create index on ingest_sources (newest_record_at) where kind <> 'kafka';
create index on ingest_sources (updated_at);

-- The fingerprints of files, for recognising copies: see src/ingest/fingerprint.rs. A fingerprint
-- covers the lines that the file had when it was last read; those up to ingest_sources.line are
-- stored.
create table ingest_fingerprints (
    source_id bigint primary key references ingest_sources on delete cascade,
    -- 64-bit hashes, little-endian: those of the first lines, and then those of all lines so far, after
    -- fewer and fewer lines.
    digests bytea not null,
    -- The number of lines at which earlier runs found the file's end, and the hash of all lines so far.
    end_lines bigint[] not null,
    end_digests bigint[] not null,
    -- A hash of the absolute path that the file was last read from.
    path bigint not null
);

create index on ingest_fingerprints ((end_digests[1]));
create index on ingest_fingerprints (path);

-- Sampled records of files: the hash of each, and its line. There are about 90 of a file of 200 lines,
-- 450 of one of 20,000 lines and 2,400 of one of a million lines. A table, because the planner would not
-- use an index on arrays.
create table ingest_samples (
    hash bigint not null,
    source_id bigint not null,
    line bigint not null,
    primary key (hash, source_id)
);

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
