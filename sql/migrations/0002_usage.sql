-- Usage records, and the hierarchy of continuous aggregates that the API reads.
--
--   usage_records ──> usage_hourly ──┬─> usage_daily
--                                    └─> organization_usage_hourly ──> organization_usage_daily
--
-- * Each record contains its organization. A join with the inventory would rewrite history when a
--   SIM card moves, and a continuous aggregate does not see changes of a joined table.
-- * usage_records has no key, trigger, index or constraint other than NOT NULL: each costs more
--   than the COPY itself.
-- * Sums are numeric, which cannot overflow. Queries cast to bigint, so a total that does not fit
--   into 64 bits fails that query alone; a bigint sum would fail every refresh of its bucket.
-- * Every view is materialized only. `simusage ingest` refreshes the buckets it changed before it
--   returns, late records included, so queries never have to add recent records.
-- * The indexes are explicit because queries look up (SIM card, bucket) and (organization, bucket).

create table usage_records (
    time timestamptz not null,
    sim_card_id integer not null,
    organization_id integer not null,
    bytes bigint not null
);

select create_hypertable('usage_records', by_range('time', interval '1 day'), create_default_indexes => false);

create materialized view usage_hourly
with (timescaledb.continuous, timescaledb.materialized_only = true, timescaledb.create_group_indexes = false) as
select
    time_bucket(interval '1 hour', time) as bucket,
    sim_card_id,
    organization_id,
    sum(bytes) as bytes,
    count(*) as records
from usage_records
group by 1, 2, 3
with no data;

create index on usage_hourly (sim_card_id, bucket);

create materialized view usage_daily
with (timescaledb.continuous, timescaledb.materialized_only = true, timescaledb.create_group_indexes = false) as
select
    time_bucket(interval '1 day', bucket) as bucket,
    sim_card_id,
    organization_id,
    sum(bytes) as bytes,
    sum(records)::bigint as records
from usage_hourly
group by 1, 2, 3
with no data;

create index on usage_daily (sim_card_id, bucket);

create materialized view organization_usage_hourly
with (timescaledb.continuous, timescaledb.materialized_only = true, timescaledb.create_group_indexes = false) as
select
    time_bucket(interval '1 hour', bucket) as bucket,
    organization_id,
    sum(bytes) as bytes,
    sum(records)::bigint as records
from usage_hourly
group by 1, 2
with no data;

create index on organization_usage_hourly (organization_id, bucket);

create materialized view organization_usage_daily
with (timescaledb.continuous, timescaledb.materialized_only = true, timescaledb.create_group_indexes = false) as
select
    time_bucket(interval '1 day', bucket) as bucket,
    organization_id,
    sum(bytes) as bytes,
    sum(records)::bigint as records
from organization_usage_hourly
group by 1, 2
with no data;

create index on organization_usage_daily (organization_id, bucket);

-- The age at which chunks move to the columnstore is a setting; their layout is not. Records arrive
-- in time order and queries select a time range. Without segments, batches are full even with
-- millions of SIM cards.
alter table usage_records set (
    timescaledb.enable_columnstore = true,
    timescaledb.orderby = 'time',
    timescaledb.segmentby = ''
);
