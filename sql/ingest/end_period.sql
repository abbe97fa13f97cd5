-- Ends the current period: see sql/functions/end_period.sql.
--
-- Parameters: none
-- Columns:
--   boundary  bigint

select end_period() as boundary
