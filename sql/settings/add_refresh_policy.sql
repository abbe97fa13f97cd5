-- Refreshes a continuous aggregate in the background, up to its newest record, and in one pass: in batches, a bucket may
-- be left out (src/db/refresh.rs).
--
-- Parameters:
--   $1 text    continuous aggregate
--   $2 bigint  age in seconds at which the refresh begins; null: since ever
--   $3 bigint  seconds between two refreshes
-- Columns: none of interest

select add_continuous_aggregate_policy(
    $1::text::regclass,
    start_offset => make_interval(secs => $2::bigint),
    end_offset => null::interval,
    schedule_interval => make_interval(secs => $3::bigint),
    buckets_per_batch => 0
)
