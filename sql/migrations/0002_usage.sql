-- Usage records, and the continuous aggregates that the API reads.
--
-- Records are partitioned by posting, not by time: the number of the batch that stored them. Numbers
-- only grow, so a range of them that has ended never changes, and is aggregated once, however late
-- its records are. ARCHITECTURE.md, "Postings", has the reasons and the measurements.
--
--   usage_records_recent ──> organization_usage_recent
--           │ archive_records
--   usage_records ─────────> organization_usage ──> organization_usage_daily
--                       └──> sim_card_usage ──> sim_card_usage_merged
--
-- posting = period * 2^40 + page * 2^20 + batch within the page
--   period  what the aggregates of usage_records add up: a million records or so, or an hour
--   page    what organization_usage_recent adds up: a second of a stream
--   span    what sim_card_usage_merged adds up: 32 periods
-- Numbers that are skipped cost nothing.
--
-- Nothing is converted to the columnstore in place: a statement that is planned after a conversion,
-- with a snapshot from before it, sees the rows in neither form. Rows reach the columnstore by COPY
-- or INSERT, and usage_levels says from which table a reader takes which postings.

create sequence posting_numbers as bigint minvalue 1099511627776 start 1099511627776 cache 1;

-- The attributes that a record may have. A record refers to a combination of them.
create table record_attributes (
    id integer generated always as identity primary key,
    -- Mobile country code and mobile network code.
    mcc text,
    mnc text,
    technology text,
    apn text,
    unique nulls not distinct (mcc, mnc, technology, apn)
);

-- Closed postings and bulk loads, in the columnstore. No key, constraint beyond NOT NULL or trigger that
-- COPY fires: each costs more than the COPY itself.
create table usage_records (
    posting bigint not null,
    time timestamptz not null,
    sim_card_id integer not null,
    organization_id integer not null,
    bytes bigint not null,
    -- The columns from here on are null in records without them, and not in the column list of COPY.
    attributes_id integer,
    bytes_up bigint,
    bytes_down bigint,
    -- The posting that this record takes back; its bytes have the opposite sign.
    reverses bigint
);

-- A chunk is 64 periods: planning costs per chunk, and one large chunk is read faster.
select create_hypertable('usage_records', by_range('posting', 70368744177664), create_default_indexes => false);

-- Empty where COPY writes to the columnstore.
create index on usage_records (sim_card_id);

alter table usage_records set (
    timescaledb.enable_columnstore = true,
    timescaledb.segmentby = '',
    timescaledb.orderby = 'sim_card_id, time'
);

-- What streams have posted since, in the row store. A chunk is a period; it is dropped after
-- archive_records has copied it.
create table usage_records_recent (like usage_records);

select create_hypertable('usage_records_recent', by_range('posting', 1099511627776), create_default_indexes => false);

create index on usage_records_recent (sim_card_id);

create index on usage_records_recent (organization_id);

create index on usage_records_recent (posting);

-- The records that organization_usage_recent leaves out.
create index on usage_records_recent (posting) where bytes not between -274877906943 and 274877906943;

-- Records never change: aggregates would keep their old sums, and no version would tell.
create function refuse_change() returns trigger
language plpgsql
as $$
begin
    if coalesce(current_setting('simusage.change_records', true), '') <> 'on' then
        raise exception 'usage records are never changed or deleted'
            using hint = 'Aggregates would keep the old sums. Retention drops old records: see storage in config.toml.';
    end if;
    return null;
end
$$;

create trigger refuse_change before update or delete or truncate on usage_records
for each statement execute function refuse_change();

create trigger refuse_change before update or delete or truncate on usage_records_recent
for each statement execute function refuse_change();

-- TimescaleDB requires this function for continuous aggregates. Nothing depends on its value.
create function newest_posting() returns bigint language sql stable as 'select last_value from posting_numbers';

select set_integer_now_func('usage_records', 'newest_posting');

select set_integer_now_func('usage_records_recent', 'newest_posting');

-- The aggregates leave out records of 2^38 bytes (256 GiB) or more, which large_usage adds up as
-- numeric. So their sums fit into bigint, if a period has fewer than 2^25 records, and one absurd
-- record fails no refresh. A record that takes back another counts as -1.
--
-- The groups are in the order of the columnstore, so that a refresh sorts once.

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

create materialized view organization_usage_daily
with (timescaledb.continuous, timescaledb.materialized_only = true, timescaledb.create_group_indexes = false) as
select
    time_bucket(1099511627776::bigint, period) as period,
    organization_id,
    date_bin('1 day', slot, '2000-01-01 00:00+00') as day,
    sum(bytes)::bigint as bytes,
    sum(records)::bigint as records
from organization_usage
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

-- Refreshed only for spans whose periods have records of the same days: see next_span.sql.
create materialized view sim_card_usage_merged
with (timescaledb.continuous, timescaledb.materialized_only = true, timescaledb.create_group_indexes = false) as
select
    time_bucket(35184372088832::bigint, period) as span,
    sim_card_id,
    day,
    organization_id,
    sum(bytes)::bigint as bytes,
    sum(records)::bigint as records
from sim_card_usage
group by 1, 2, 3, 4
with no data;

-- The next two are refreshed only for periods that have such records, so they cost nothing else.

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

-- Records with attributes, or with bytes up and down.
create materialized view detailed_usage
with (timescaledb.continuous, timescaledb.materialized_only = true, timescaledb.create_group_indexes = false) as
select
    sim_card_id,
    date_bin('1 day', time, '2000-01-01 00:00+00') as day,
    organization_id,
    attributes_id,
    time_bucket(1099511627776::bigint, posting) as period,
    sum(bytes) as bytes,
    sum(bytes_up) as bytes_up,
    sum(bytes_down) as bytes_down,
    count(*) - 2 * count(reverses) as records
from usage_records
where attributes_id is not null or bytes_up is not null or bytes_down is not null
group by 1, 2, 3, 4, 5
with no data;

create index on organization_usage_recent (organization_id, slot);

create index on organization_usage (organization_id);

create index on organization_usage_daily (organization_id);

create index on sim_card_usage (sim_card_id);

create index on sim_card_usage (organization_id);

create index on sim_card_usage_merged (sim_card_id);

create index on sim_card_usage_merged (organization_id);

create index on large_usage (sim_card_id);

create index on detailed_usage (sim_card_id);

-- organization_usage_recent is dropped period by period, with the records that it adds up, and
-- sim_card_usage span by span.
select
    set_chunk_time_interval('organization_usage_recent', 1099511627776),
    set_chunk_time_interval('organization_usage', 70368744177664),
    set_chunk_time_interval('organization_usage_daily', 70368744177664),
    set_chunk_time_interval('sim_card_usage', 35184372088832),
    set_chunk_time_interval('sim_card_usage_merged', 70368744177664),
    set_chunk_time_interval('large_usage', 70368744177664),
    set_chunk_time_interval('detailed_usage', 70368744177664);

-- The period must come first. TimescaleDB takes the rows of all refreshes into a chunk as one sorted
-- run, and returns wrong groups where two of them overlap.
alter materialized view organization_usage set (
    timescaledb.enable_columnstore = true,
    timescaledb.segmentby = '',
    timescaledb.orderby = 'period, organization_id, slot'
);

alter materialized view organization_usage_daily set (
    timescaledb.enable_columnstore = true,
    timescaledb.segmentby = '',
    timescaledb.orderby = 'period, organization_id, day'
);

alter materialized view sim_card_usage set (
    timescaledb.enable_columnstore = true,
    timescaledb.segmentby = '',
    timescaledb.orderby = 'period, sim_card_id, day'
);

alter materialized view sim_card_usage_merged set (
    timescaledb.enable_columnstore = true,
    timescaledb.segmentby = '',
    timescaledb.orderby = 'span, sim_card_id, day'
);

-- The ids of SIM cards follow the organizations, so a batch of the columnstore has few of them. By
-- default, the index by organization becomes a Bloom filter, which doubles the size. The view does
-- not accept the setting; its hypertable does.
do $$
declare
    hypertable record;
begin
    for hypertable in
        select materialization_hypertable_schema as schema, materialization_hypertable_name as name
        from timescaledb_information.continuous_aggregates
        where view_schema = current_schema() and view_name in ('sim_card_usage', 'sim_card_usage_merged')
    loop
        execute format(
            'alter table %I.%I set (timescaledb.sparse_index = ''minmax(organization_id)'')',
            hypertable.schema, hypertable.name
        );
    end loop;
exception
    when others then
        -- Before TimescaleDB 2.25 there is no such setting, and no Bloom filter.
        raise debug 'timescaledb.sparse_index: %', sqlerrm;
end
$$;

-- The register. Readers take postings before closed_before from the level, and others from where the
-- level gets its rows. It changes only after what it says is committed.
create table usage_levels (
    level text primary key,
    closed_before bigint not null,
    -- Rows of earlier days have been dropped, or some of them.
    kept_from date not null default '-infinity',
    -- The age at which rows are dropped; null for never.
    keep_days integer
);

insert into usage_levels (level, closed_before) values
    ('usage_records', 1099511627776),
    ('organization_usage_recent', 1099511627776),
    ('organization_usage', 1099511627776),
    ('organization_usage_daily', 1099511627776),
    ('sim_card_usage', 1099511627776),
    ('sim_card_usage_merged', 0),
    -- These two are at 0 until there is a period with such records.
    ('large_usage', 0),
    ('detailed_usage', 0);

-- Which UTC days the postings have records of: a row for each day of a batch, in its transaction.
-- close_level folds them into a row for each period and day. The sum of versions over the days of an
-- interval changes with each commit that changes usage in it.
create table posting_days (
    day date not null,
    posting bigint not null,
    -- The sum of the random versions of its batches, modulo 2^62.
    version bigint not null default random_version(),
    records bigint not null,
    -- Whether records of 2^38 bytes or more may be among them.
    is_large boolean not null,
    -- Whether records with attributes, or with bytes up and down, may be among them.
    is_detailed boolean not null default false,
    -- Whether they are in usage_records_recent.
    is_recent boolean not null
);

create index on posting_days (day, posting);

create index on posting_days (posting);

-- When pages and periods were closed.
create table posting_closings (
    closed_before bigint primary key,
    closed_at timestamptz not null default clock_timestamp()
);

-- The spans of closed periods that merging has reached. Readers take those that are merged from
-- sim_card_usage_merged, and others from sim_card_usage.
create table sim_card_spans (
    -- Its first posting.
    span bigint primary key,
    -- False where merging would not have reduced rows, or a sum would exceed 64 bits.
    is_merged boolean not null,
    decided_at timestamptz not null default clock_timestamp(),
    -- Whether sim_card_usage no longer has the span.
    is_dropped boolean not null default false
);

-- Every usage record, wherever it is stored. A join, because TimescaleDB 2.29 may return no rows of
-- a hypertable that is compared with a subquery, if the plan is parallel.
create view all_usage_records as
select * from usage_records
union all
select recent.*
from usage_levels
join usage_records_recent as recent on recent.posting >= usage_levels.closed_before
where usage_levels.level = 'usage_records';
