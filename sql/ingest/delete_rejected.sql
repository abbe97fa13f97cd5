-- Deletes rejected records that are stored now.
--
-- Parameters:
--   $1 bigint[]  records

delete from rejected_records where id = any($1::bigint[])
