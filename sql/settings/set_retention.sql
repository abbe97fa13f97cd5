-- Sets the age at which usage is dropped.
--
-- Parameters:
--   $1 text     a level of usage_levels
--   $2 integer  days; null for never

update usage_levels set keep_days = $2 where level = $1
