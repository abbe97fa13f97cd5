-- Whether refresh_continuous_aggregate splits its window into batches by default, as it does since
-- TimescaleDB 2.28.
--
-- Parameters: none
-- Columns:
--   refreshes_in_batches  boolean

select coalesce(bool_or('options' = any(proargnames)), false) as refreshes_in_batches
from pg_proc
where proname = 'refresh_continuous_aggregate'
