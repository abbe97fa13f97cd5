-- What the other services read: records by time, and continuous aggregates of each hour and day. They are complete, and
-- nothing maintains them. Statements end with a semicolon and an empty line, and run one by one.

create schema contenders;

create table contenders.usage_records (
    time timestamptz not null,
    sim_card_id integer not null,
    organization_id integer not null,
    bytes bigint not null
);

select create_hypertable('contenders.usage_records', by_range('time', interval '1 day'), create_default_indexes => false);

insert into contenders.usage_records
select time, sim_card_id, organization_id, bytes
from all_usage_records
order by time;

create materialized view contenders.usage_hourly
with (timescaledb.continuous, timescaledb.materialized_only = true, timescaledb.create_group_indexes = false) as
select
    time_bucket(interval '1 hour', time) as bucket,
    sim_card_id,
    organization_id,
    sum(bytes) as bytes,
    count(*) as records
from contenders.usage_records
group by 1, 2, 3
with no data;

create index on contenders.usage_hourly (sim_card_id, bucket);

create materialized view contenders.usage_daily
with (timescaledb.continuous, timescaledb.materialized_only = true, timescaledb.create_group_indexes = false) as
select
    time_bucket(interval '1 day', bucket) as bucket,
    sim_card_id,
    organization_id,
    sum(bytes) as bytes,
    sum(records)::bigint as records
from contenders.usage_hourly
group by 1, 2, 3
with no data;

create index on contenders.usage_daily (sim_card_id, bucket);

create materialized view contenders.organization_usage_hourly
with (timescaledb.continuous, timescaledb.materialized_only = true, timescaledb.create_group_indexes = false) as
select
    time_bucket(interval '1 hour', bucket) as bucket,
    organization_id,
    sum(bytes) as bytes,
    sum(records)::bigint as records
from contenders.usage_hourly
group by 1, 2
with no data;

create index on contenders.organization_usage_hourly (organization_id, bucket);

create materialized view contenders.organization_usage_daily
with (timescaledb.continuous, timescaledb.materialized_only = true, timescaledb.create_group_indexes = false) as
select
    time_bucket(interval '1 day', bucket) as bucket,
    organization_id,
    sum(bytes) as bytes,
    sum(records)::bigint as records
from contenders.organization_usage_hourly
group by 1, 2
with no data;

create index on contenders.organization_usage_daily (organization_id, bucket);

call refresh_continuous_aggregate('contenders.usage_hourly', null, null);

call refresh_continuous_aggregate('contenders.usage_daily', null, null);

call refresh_continuous_aggregate('contenders.organization_usage_hourly', null, null);

call refresh_continuous_aggregate('contenders.organization_usage_daily', null, null);

vacuum analyze;

checkpoint;
