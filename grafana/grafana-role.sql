-- The user that Grafana reads with. For psql 15 or later, as somebody who may make roles, in the database of simusage:
--
--   GRAFANA_PASSWORD=… psql --dbname=simusage --file=grafana-role.sql
--
-- It can read what the dashboards show, and nothing else: no token, and of a rejected record neither its text nor
-- what is wrong with it in words, both of which may hold anything. Running this again sets the password anew.

\getenv password GRAFANA_PASSWORD

select 'create role grafana login'
where not exists (select from pg_roles where rolname = 'grafana')
\gexec

alter role grafana login password :'password';
alter role grafana set default_transaction_read_only = on;
alter role grafana set statement_timeout = '30s';

grant usage on schema public to grafana;
grant select on organizations, sim_cards, sim_card_assignments to grafana;
grant select on usage_hourly, usage_daily, organization_usage_hourly, organization_usage_daily to grafana;
grant select on ingest_sources, stale_hours, usage_versions, inventory_version to grafana;
grant select (rejected_at, source, line, reason, field) on rejected_records to grafana;
