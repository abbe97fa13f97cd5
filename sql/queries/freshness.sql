-- How fresh the usage of an interval is. Does not read the usage itself.
--
-- Parameters:
--   $1 timestamptz  start of the interval
--   $2 timestamptz  end of the interval
--
-- Columns: see sql/functions/usage_freshness.sql
--   version            bigint
--   inventory_version  bigint
--   complete_through   timestamptz
--   last_ingested_at   timestamptz

select * from usage_freshness($1, $2)
