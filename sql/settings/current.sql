-- The storage settings in effect.
--
-- Parameters: none
-- Columns:
--   relation  text    usage_records or the name of a continuous aggregate
--   setting   text    chunk_interval, columnstore_after, refresh_every, refresh_from or drop_after
--   seconds   bigint  its value; a setting that is off has no row

with relations as (
    select hypertable_schema as schema, hypertable_name as name, hypertable_name::text as relation
    from timescaledb_information.hypertables
    where hypertable_schema = current_schema() and hypertable_name = 'usage_records'
    union all
    select materialization_hypertable_schema, materialization_hypertable_name, view_name::text
    from timescaledb_information.continuous_aggregates
    where view_schema = current_schema()
),
policies as (
    -- Some versions list the policy of an aggregate under the view, others under its hypertable.
    select distinct r.relation, j.proc_name, j.schedule_interval, j.config
    from timescaledb_information.jobs as j
    join relations as r on j.hypertable_name::text in (r.relation, r.name::text)
),
settings as (
    select r.relation, 'chunk_interval' as setting, d.time_interval as value
    from relations as r
    join timescaledb_information.dimensions as d on d.hypertable_schema = r.schema and d.hypertable_name = r.name
    union all
    select relation, 'columnstore_after', (config ->> 'compress_after')::interval
    from policies where proc_name = 'policy_compression'
    union all
    -- Ignores a policy that refreshes in batches, so that it is replaced.
    select relation, 'refresh_every', schedule_interval
    from policies
    where proc_name = 'policy_refresh_continuous_aggregate' and config @> '{"buckets_per_batch": 0}'
    union all
    select relation, 'refresh_from', (config ->> 'start_offset')::interval
    from policies where proc_name = 'policy_refresh_continuous_aggregate'
    union all
    select relation, 'drop_after', (config ->> 'drop_after')::interval
    from policies where proc_name = 'policy_retention'
)
select relation, setting, extract(epoch from value)::bigint as seconds
from settings
where value is not null
order by relation, setting
