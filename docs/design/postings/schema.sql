-- Usage records partitioned by posting number, continuous aggregates over closed posting periods, and
-- the register of what is closed.
--
--   usage_records_recent --> organization_usage_recent      row store: what streams posted last
--           | archive_records
--   usage_records -------+-> organization_usage             columnstore: bulk loads, and all that is closed
--                        +-> sim_card_usage
--
-- Nothing is ever converted to the columnstore in place: a statement that plans after a conversion, with a snapshot
-- from before it, sees the rows in neither form. Rows reach the columnstore by COPY or INSERT (direct compress), and
-- the register says from which table a reader takes which postings.
--
-- A posting number identifies a batch: posting = period * 2^40 + page * 2^20 + batch within the page.
--   period  the unit that organization_usage and sim_card_usage aggregate and that never changes
--           once it is closed; a new one begins after about a million records, or at the end of a
--           bulk load
--   page    the unit that organization_usage_recent aggregates; a new one begins every second or so
-- Numbers that are skipped cost nothing. Period p covers the postings [p << 40, (p + 1) << 40).

create extension if not exists timescaledb;

create sequence posting_numbers as bigint minvalue 1099511627776 start 1099511627776 cache 1;

create table usage_records (
    posting bigint not null,
    time timestamptz not null,
    sim_card_id integer not null,
    organization_id integer not null,
    bytes bigint not null,
    -- All of the following are null in records without them, and then cost nothing in COPY (they are
    -- not in its column list) and next to nothing in the columnstore.
    attribute_id integer,
    bytes_up bigint,
    bytes_down bigint,
    -- The batch that this record takes back. bytes, bytes_up and bytes_down have the sign inverted.
    reverses bigint
);

-- A chunk is 64 periods: planning costs per chunk, and one large chunk is read faster.
select create_hypertable('usage_records', by_range('posting', 70368744177664), create_default_indexes => false);

-- Only an engine without direct compress has rows in it.
create index on usage_records (sim_card_id);

alter table usage_records set (
    timescaledb.enable_columnstore = true,
    timescaledb.segmentby = '',
    timescaledb.orderby = 'sim_card_id, time'
);

-- Where streams post: rows by their indexes. A chunk is one period, which goes a minute after it was archived.
create table usage_records_recent (like usage_records);
select create_hypertable('usage_records_recent', by_range('posting', 1099511627776), create_default_indexes => false);
create index on usage_records_recent (sim_card_id);
create index on usage_records_recent (posting);

-- TimescaleDB asks for this function. Nothing here depends on it: there is no refresh policy.
create function newest_posting() returns bigint language sql stable as 'select last_value from posting_numbers';
select set_integer_now_func('usage_records', 'newest_posting');
select set_integer_now_func('usage_records_recent', 'newest_posting');

-- The aggregates leave out records of 2^38 bytes (256 GiB) and more, of which there are none in practice, and which
-- large_usage sums as numeric: so sums are bigint, cannot overflow within a period of fewer than 2^25 records, and one
-- absurd record fails no refresh. A reversed record counts -1. The group keys of
-- what goes to the columnstore come in the order of its orderby, so that a refresh sorts once.

create materialized view organization_usage_recent
with (timescaledb.continuous, timescaledb.materialized_only = true, timescaledb.create_group_indexes = false) as
select
    organization_id,
    date_bin('15 minutes', time, '2000-01-01 00:00+00') as slot,
    time_bucket(1048576::bigint, posting) as page,
    sum(bytes)::bigint as bytes,
    count(*) - 2 * count(reverses) as records
from usage_records_recent
where bytes between -274877906943 and 274877906943
group by 1, 2, 3
with no data;

create materialized view organization_usage
with (timescaledb.continuous, timescaledb.materialized_only = true, timescaledb.create_group_indexes = false) as
select
    time_bucket(1099511627776::bigint, posting) as period,
    organization_id,
    date_bin('15 minutes', time, '2000-01-01 00:00+00') as slot,
    sum(bytes)::bigint as bytes,
    count(*) - 2 * count(reverses) as records
from usage_records
where bytes between -274877906943 and 274877906943
group by 1, 2, 3
with no data;

create materialized view sim_card_usage
with (timescaledb.continuous, timescaledb.materialized_only = true, timescaledb.create_group_indexes = false) as
select
    time_bucket(1099511627776::bigint, posting) as period,
    sim_card_id,
    date_bin('1 day', time, '2000-01-01 00:00+00') as day,
    organization_id,
    sum(bytes)::bigint as bytes,
    count(*) - 2 * count(reverses) as records
from usage_records
where bytes between -274877906943 and 274877906943
group by 1, 2, 3, 4
with no data;

-- Two aggregates that are refreshed only where a period has such records, as posting_days says, and so cost nothing else.

create materialized view large_usage
with (timescaledb.continuous, timescaledb.materialized_only = true, timescaledb.create_group_indexes = false) as
select
    sim_card_id,
    organization_id,
    date_bin('15 minutes', time, '2000-01-01 00:00+00') as slot,
    time_bucket(1099511627776::bigint, posting) as period,
    sum(bytes) as bytes,
    count(*) - 2 * count(reverses) as records
from usage_records
where bytes not between -274877906943 and 274877906943
group by 1, 2, 3, 4
with no data;

-- What records with attributes, or with bytes up and down, used: the API of a later issue reads it.
create materialized view detailed_usage
with (timescaledb.continuous, timescaledb.materialized_only = true, timescaledb.create_group_indexes = false) as
select
    sim_card_id,
    date_bin('1 day', time, '2000-01-01 00:00+00') as day,
    organization_id,
    attribute_id,
    time_bucket(1099511627776::bigint, posting) as period,
    sum(bytes) as bytes,
    sum(bytes_up) as bytes_up,
    sum(bytes_down) as bytes_down,
    count(*) - 2 * count(reverses) as records
from usage_records
where attribute_id is not null or bytes_up is not null or bytes_down is not null
group by 1, 2, 3, 4, 5
with no data;

create index on organization_usage_recent (organization_id, slot);
create index on organization_usage (organization_id);
create index on sim_card_usage (sim_card_id);
create index on sim_card_usage (organization_id);
create index on large_usage (sim_card_id);
create index on detailed_usage (sim_card_id);

-- Chunks: organization_usage_recent one period, so that a chunk goes when its period is closed; the others
-- 64 periods, because planning costs per chunk, and one large chunk is read faster.
select set_chunk_time_interval('organization_usage_recent', 1099511627776);
select set_chunk_time_interval('organization_usage', 70368744177664);
select set_chunk_time_interval('sim_card_usage', 70368744177664);
select set_chunk_time_interval('large_usage', 70368744177664);
select set_chunk_time_interval('detailed_usage', 70368744177664);

-- The refreshed dimension comes first in orderby: with direct compress, TimescaleDB takes the rows of all
-- refreshes into a chunk as one sorted run, and returns wrong groups where two of them overlap.
alter materialized view organization_usage set (
    timescaledb.enable_columnstore = true,
    timescaledb.segmentby = '',
    timescaledb.orderby = 'period, organization_id, slot'
);
alter materialized view sim_card_usage set (
    timescaledb.enable_columnstore = true,
    timescaledb.segmentby = '',
    timescaledb.orderby = 'period, sim_card_id, day'
);

-- Keys of SIM cards are given organization by organization (inventory load), so a batch of 1,000 rows has few. Without this,
-- TimescaleDB makes a bloom filter of the index by organization, which doubles the size and excludes nothing where they are
-- mixed. The view does not take the setting, its hypertable does.
do $$
begin
    execute (
        select format(
            'alter table %I.%I set (timescaledb.sparse_index = ''minmax(organization_id)'')',
            materialization_hypertable_schema, materialization_hypertable_name
        )
        from timescaledb_information.continuous_aggregates
        where view_name = 'sim_card_usage'
    );
end
$$;

-- The register: postings before closed_before are in the aggregate, all others are not to be read from it.
-- It only grows, in a transaction after the refresh has committed.
create table usage_levels (
    level text primary key,
    closed_before bigint not null
);
insert into usage_levels values
    ('usage_records', 1099511627776),
    ('organization_usage_recent', 1099511627776),
    ('organization_usage', 1099511627776),
    ('sim_card_usage', 1099511627776);

-- Which event days the postings contain. Ingest adds a row for each day of a batch in its transaction;
-- closing a page or a period folds them into one row for each period and day. batches is never lost in folding,
-- so its sum over an interval's days changes whenever anything in the interval changes.
create table posting_days (
    day date not null,
    posting bigint not null,
    batches bigint not null,
    records bigint not null,
    -- Whether a record of 2^38 bytes or more may be among them.
    is_large boolean not null,
    -- Whether records with attributes, or with bytes up and down, may be among them.
    is_detailed boolean not null default false,
    -- Whether they are in usage_records_recent.
    is_recent boolean not null
);
create index on posting_days (day, posting);
create index on posting_days (posting);

-- The instants at which pages and periods were closed, for as-of and changed-since.
create table posting_closings (
    closed_before bigint primary key,
    closed_at timestamptz not null default clock_timestamp()
);

-- Begins a batch: allocates its posting number and marks it as open until the transaction ends, however it
-- ends. A page closes only when none of its batches is open. Blocks nobody and is blocked by nobody: the lock is
-- shared and nobody ever takes it exclusively.
--
-- The number is read again after the lock: if the page ended in between, the closer might have missed the lock,
-- and the batch takes a number of the next page.
create function begin_posting() returns bigint
language plpgsql volatile as $$
declare
    number bigint;
begin
    loop
        number := nextval('posting_numbers');
        perform pg_advisory_xact_lock_shared(4611686018427387904 + (number >> 20));
        exit when (select last_value >> 20 from posting_numbers) = number >> 20;
    end loop;
    return number;
end
$$;

-- Ends the current page, or the current period, and returns where the next one begins. Batches that begin from
-- now on have a number from there on. Called twice, it ends an empty page, which costs nothing.
create function end_page() returns bigint
language sql volatile as $$
    select setval('posting_numbers', ((last_value >> 20) + 1) << 20, false) from posting_numbers
$$;
create function end_period() returns bigint
language sql volatile as $$
    select setval('posting_numbers', ((last_value >> 40) + 1) << 40, false) from posting_numbers
$$;

-- Whether a batch before a boundary may still commit.
create function is_posting_open(boundary bigint) returns boolean
language sql volatile as $$
    select exists (
        select from pg_locks
        where locktype = 'advisory'
            and database = (select oid from pg_database where datname = current_database())
            and objsubid = 1
            and (classid::bigint << 32 | objid::bigint) >= 4611686018427387904
            and (classid::bigint << 32 | objid::bigint) - 4611686018427387904 < boundary >> 20
    )
$$;

-- Moves a level's mark in the register, and folds the days of the postings into one row for each period and day. Where
-- two of these meet, the second waits for the register's row and finds nothing left to do.
create function close_level(closed_level text, boundary bigint) returns boolean
language plpgsql volatile as $$
declare
    before bigint;
begin
    select closed_before into before from usage_levels where level = closed_level for update;
    if before >= boundary then
        return false;
    end if;
    update usage_levels set closed_before = boundary where level = closed_level;
    insert into posting_closings (closed_before) values (boundary) on conflict do nothing;
    -- Two of these at once: a row that one has just folded would be invisible to the other's DELETE, and stay as the one
    -- left it.
    perform pg_advisory_xact_lock(4611686018427387903);
    with folded as (
        delete from posting_days
        where posting < boundary and posting >= (before >> 40) << 40
        returning *
    )
    insert into posting_days (day, posting, batches, records, is_large, is_detailed, is_recent)
    select
        day, (posting >> 40) << 40, sum(batches), sum(records), bool_or(is_large), bool_or(is_detailed),
        is_recent and closed_level <> 'usage_records'
    from folded
    group by day, posting >> 40, is_recent and closed_level <> 'usage_records';
    return true;
end
$$;

-- Copies closed postings to usage_records, and has readers take them from there, in one transaction.
create function archive_records(boundary bigint) returns boolean
language plpgsql volatile as $$
declare
    before bigint;
begin
    select closed_before into before from usage_levels where level = 'usage_records' for update;
    if before >= boundary then
        return false;
    end if;
    -- TimescaleDB sorts what it compresses, as many rows at a time as direct_compress_insert_tuple_sort_limit says.
    execute format(
        'insert into usage_records select * from usage_records_recent where posting >= %s and posting < %s', before, boundary
    );
    return close_level('usage_records', boundary);
end
$$;
