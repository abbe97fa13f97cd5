-- Deletes rejected records that have now been stored.
--
-- Parameters:
--   $1 bigint[]  ids of rejected records

delete from rejected_records where id = any($1::bigint[])
