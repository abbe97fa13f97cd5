-- The newest UTC day of which records are stored.
--
-- Parameters: none
-- Columns:
--   day  date  null: there are none

select max(day) as day from posting_days
