-- Refreshes a continuous aggregate in the background, up to its newest record. In a single pass,
-- because a refresh in batches may skip a bucket (see src/db/refresh.rs).
--
-- Parameters:
--   $1 text    continuous aggregate
--   $2 bigint  length of the refresh window in seconds; null: unlimited
--   $3 bigint  seconds between two refreshes
-- Columns: ignored

select add_continuous_aggregate_policy(
    $1::text::regclass,
    start_offset => make_interval(secs => $2::bigint),
    end_offset => null::interval,
    schedule_interval => make_interval(secs => $3::bigint),
    buckets_per_batch => 0
)
