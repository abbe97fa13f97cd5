-- Adds the UTC days of a batch's records.
--
-- Parameters:
--   $1 bigint    posting
--   $2 date[]    days
--   $3 bigint[]  number of records on each of them
--   $4 boolean   whether a record may be of 2^38 bytes or more
--   $5 boolean   whether they are in the row store

insert into posting_days (day, posting, records, is_large, is_recent)
select day, $1, records, $4, $5
from unnest($2::date[], $3::bigint[]) as counted (day, records)
