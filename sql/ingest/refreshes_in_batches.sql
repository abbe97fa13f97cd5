-- Whether refresh_continuous_aggregate cuts its window into batches unless it is told not to, as it does since
-- TimescaleDB 2.28.
--
-- Parameters: none
-- Columns:
--   refreshes_in_batches  boolean

select coalesce(bool_or('options' = any(proargnames)), false) as refreshes_in_batches
from pg_proc
where proname = 'refresh_continuous_aggregate'
