-- Since when totals are kept, by day.
--
-- Parameters: none
-- Columns:
--   kept_from  date     earlier days have been dropped; null if none have
--   keep_days  integer  the age at which days are dropped; null for never

select nullif(kept_from, '-infinity') as kept_from, keep_days from usage_levels where level = 'sim_card_usage'
