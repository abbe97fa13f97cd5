-- How feeds are told apart.
--
-- Parameters: none
-- Columns:
--   feed                text     null for the feeds that match no pattern
--   silent_after_hours  integer  null: never silent for too long

select feed, (extract(epoch from silent_after) / 3600)::integer as silent_after_hours
from feed_patterns
order by number > 0 desc, number
