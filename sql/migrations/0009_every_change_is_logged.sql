-- simusage: no transaction
--
-- Has TimescaleDB log each change of usage as one that aggregates are yet to catch.
--
-- It logs only what is older than a threshold, which a refresh moves to the end of its window, and takes all that is newer
-- for not refreshed yet. A writer reads the threshold as it commits, and locks nothing against a refresh that moves it
-- meanwhile: what becomes visible after that refresh has read, as with a slow disk or a synchronous standby, is logged
-- nowhere, and no refresh finds it until something else changes in its hour. A threshold at the end of all time that a
-- record can carry (Interval::RECORDABLE) has nowhere to be moved to. The buckets refreshed here are the last that can be,
-- and empty; everything before them stays as it was.

call refresh_continuous_aggregate('usage_hourly', '2199-12-31 23:00+00', '2200-01-01 00:00+00');

call refresh_continuous_aggregate('organization_usage_hourly', '2199-12-31 23:00+00', '2200-01-01 00:00+00');

call refresh_continuous_aggregate('usage_daily', '2199-12-31 00:00+00', '2200-01-01 00:00+00');

call refresh_continuous_aggregate('organization_usage_daily', '2199-12-31 00:00+00', '2200-01-01 00:00+00');
