-- The retention in effect.
--
-- Parameters: none
-- Columns:
--   level      text     a level of usage_levels
--   keep_days  integer  null for everything

select level, keep_days from usage_levels order by level
