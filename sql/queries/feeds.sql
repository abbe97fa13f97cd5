-- The first 1,000 feeds by name: see sql/functions/feeds.sql.
--
-- Parameters: none
-- Columns:
--   feed              text
--   complete_through  timestamptz
--   last_ingested_at  timestamptz
--   is_expected       boolean
--   is_live           boolean

select feed, complete_through, last_ingested_at, is_expected, is_live
from feeds(false)
order by feed collate "C"
limit 1000
