-- Whether the schema is there, at the cost of planning: an error (42P01) where it is not, no row where it is.
--
-- Parameters: none.
--
-- Columns:
--   bucket  timestamptz

select bucket from usage_hourly where false;
