-- The hours that remain to be refreshed.
--
-- Parameters: none
-- Columns:
--   id        bigint
--   start_at  timestamptz
--   end_at    timestamptz

select id, start_at, end_at from stale_hours
