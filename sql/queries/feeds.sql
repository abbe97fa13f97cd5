-- The first 1,000 feeds by name: see sql/functions/feeds.sql.
--
-- Parameters: none
-- Columns:
--   feed                    text
--   complete_through        timestamptz
--   last_ingested_at        timestamptz
--   is_expected             boolean
--   is_live                 boolean
--   usage_complete_through  timestamptz  the instant up to which usage is complete, the same in each row

select feed, complete_through, last_ingested_at, is_expected, is_live,
    (select freshness.complete_through from usage_freshness(now(), now()) as freshness) as usage_complete_through
from feeds(false)
order by feed collate "C"
limit 1000
