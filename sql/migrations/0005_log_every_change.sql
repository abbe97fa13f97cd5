-- simusage: no transaction
--
-- Makes TimescaleDB log every change of usage for the next refresh.
--
-- TimescaleDB logs only changes older than a threshold, and considers everything newer as not
-- refreshed yet. A refresh moves the threshold to the end of its window. A writer reads the
-- threshold when it commits, without a lock that would stop a concurrent refresh. Rows that become
-- visible only after such a refresh has read its window (slow disk, synchronous standby) are in no
-- log, so no refresh includes them until something else changes in their hour.
--
-- These refreshes move the thresholds to the end of the time that a record can have
-- (Interval::RECORDABLE), beyond which no refresh can move them. Each covers the last possible
-- bucket, which is empty.

call refresh_continuous_aggregate('usage_hourly', '2199-12-31 23:00+00', '2200-01-01 00:00+00');

call refresh_continuous_aggregate('organization_usage_hourly', '2199-12-31 23:00+00', '2200-01-01 00:00+00');

call refresh_continuous_aggregate('usage_daily', '2199-12-31 00:00+00', '2200-01-01 00:00+00');

call refresh_continuous_aggregate('organization_usage_daily', '2199-12-31 00:00+00', '2200-01-01 00:00+00');
