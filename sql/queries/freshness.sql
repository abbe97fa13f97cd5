-- How fresh an answer over an interval would be, without touching the usage.
--
-- Parameters:
--   $1 timestamptz  start of the interval
--   $2 timestamptz  end of it
--
-- Columns:
--   version            bigint       as usage_freshness has it, like the next four
--   inventory_version  bigint
--   stale_from         timestamptz
--   complete_through   timestamptz
--   last_ingested_at   timestamptz

select * from usage_freshness($1, $2)
