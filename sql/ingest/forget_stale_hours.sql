-- Forgets hours that have been refreshed: those rows that were read before, because one that was added meanwhile
-- may have come too late for the refresh.
--
-- Parameters:
--   $1 bigint[]  rows

delete from stale_hours where id = any($1::bigint[])
