-- What has been ingested, and which hours of it the aggregates do not show yet.

-- The ledger: how far each source has been stored. The position moves in the transaction that stores the
-- records before it, so it is never ahead of them and never behind.
--
-- kind and identity say which source it is: a file by the hash of its beginning ('file'), a stream by the name
-- it was given ('stream'), one run's standard input by a number made up for it ('run').
create table ingest_sources (
    id bigint generated always as identity primary key,
    kind text not null,
    identity text not null,
    -- How many bytes of a file its identity is the hash of.
    head_bytes integer,
    -- What it was called when it was read last; for people.
    name text not null,
    -- The next byte to read, decompressed, and how many lines end before it.
    position bigint not null default 0,
    line bigint not null default 0,
    -- BLAKE3 of all bytes before position; null while there are none.
    prefix_hash bytea,
    -- How many batches have moved this row, and the number that the run of the last one gave itself.
    batches bigint not null default 0,
    writer bigint not null default 0,
    -- Records read are those stored plus those rejected.
    stored bigint not null default 0,
    rejected bigint not null default 0,
    first_seen timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    unique (kind, identity)
);

-- Files that were shorter than a whole beginning when they were first seen are few, and each length among them
-- is one more beginning to look for.
create index on ingest_sources (head_bytes) where head_bytes < 4096;

-- Hours whose records are stored and whose aggregates are yet to be refreshed, written in the transaction of the
-- batch that stored the records. Whoever refreshes deletes the rows it has read, so nothing stays invisible
-- because a process was killed between its commit and its refresh.
create table stale_hours (
    id bigint generated always as identity primary key,
    start_at timestamptz not null,
    end_at timestamptz not null
);

-- What it takes to try a rejected record again: its format, and the header it stood under, if it was CSV.
-- source_id is its row in ingest_sources; null where the source cannot be read again, and in older rows.
alter table rejected_records
    add column source_id bigint,
    add column format text,
    add column header bytea;

create index on rejected_records (source_id, position) where source_id is not null;
