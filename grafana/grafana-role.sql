-- Creates the database user for Grafana. Run it with psql 15 or later, as a user who may create
-- roles:
--
--   GRAFANA_PASSWORD=… psql --dbname=simusage --file=grafana-role.sql
--
-- The user can read only what the dashboards show. It cannot read tokens, nor the columns raw and
-- detail of rejected_records, which contain text from the input. Run it again to change the
-- password.

\getenv password GRAFANA_PASSWORD

select 'create role grafana login'
where not exists (select from pg_roles where rolname = 'grafana')
\gexec

alter role grafana login password :'password';
alter role grafana set default_transaction_read_only = on;
alter role grafana set statement_timeout = '30s';
-- The buckets of the dashboards are in UTC.
alter role grafana set timezone = 'UTC';

grant usage on schema public to grafana;
grant select on organizations, sim_cards, sim_card_assignments to grafana;
grant select on usage_records, usage_records_recent, usage_levels, posting_days, sim_card_spans to grafana;
grant select on organization_usage_recent, organization_usage, organization_usage_daily to grafana;
grant select on sim_card_usage, sim_card_usage_merged, large_usage to grafana;
grant select on ingest_sources, feed_patterns, inventory_version to grafana;
grant select (rejected_at, source, line, reason, field) on rejected_records to grafana;
