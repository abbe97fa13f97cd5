-- Adds hours whose records a batch has changed, to be refreshed.
--
-- Parameters, parallel arrays:
--   $1 timestamptz[]  starts
--   $2 timestamptz[]  ends

insert into stale_hours (start_at, end_at)
select start_at, end_at from unnest($1::timestamptz[], $2::timestamptz[]) as given (start_at, end_at)
