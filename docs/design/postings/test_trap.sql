-- The wrong-sum trap: the number of groups by SIM card must equal the number of distinct SIM cards, for the orderby of the
-- schema after many refreshes into one chunk; the last statements show that another orderby fails (2.29.2).
\set ON_ERROR_STOP 1
\o /dev/null
\ir schema.sql
\o
set timescaledb.enable_direct_compress_insert = on;
set timescaledb.enable_direct_compress_on_cagg_refresh = on;
create materialized view trap with (timescaledb.continuous, timescaledb.materialized_only = true, timescaledb.create_group_indexes = false) as
select time_bucket(1099511627776::bigint, posting) as period, sim_card_id, date_bin('1 day', time, '2000-01-01+00') as day, sum(bytes)::bigint as bytes from usage_records group by 1, 2, 3 with no data;
alter materialized view trap set (timescaledb.enable_columnstore = true, timescaledb.segmentby = '', timescaledb.orderby = 'sim_card_id, period');
insert into usage_records select p << 40, timestamptz '2026-11-01 00:00+00' + p * interval '1 day', i, 1 + i % 7, i from generate_series(1::bigint, 6) p, generate_series(1, 20000) i;
select format('call refresh_continuous_aggregate(%L, %s, %s)', v, p << 40, (p + 1) << 40) from generate_series(1::bigint, 6) p, unnest(array['sim_card_usage', 'organization_usage', 'trap']) v \gexec
set enable_hashagg = off;
select 'sim_card_usage: ' || case when count(*) = 20000 and sum(b) = 6 * 20000::bigint * 20001 / 2 then 'right' else 'WRONG' end, count(*), sum(b) from (select sim_card_id, sum(bytes) b from sim_card_usage group by 1) x;
select 'organization_usage: ' || case when count(*) = 7 and sum(b) = 6 * 20000::bigint * 20001 / 2 then 'right' else 'WRONG' end, count(*), sum(b) from (select organization_id, sum(bytes) b from organization_usage group by 1) x;
select 'orderby sim_card_id first: ' || case when count(*) = 20000 then 'right' else 'WRONG, as expected' end, count(*), sum(b) from (select sim_card_id, sum(bytes) b from trap group by 1) x;
