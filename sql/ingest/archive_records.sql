-- Copies closed periods to the columnstore: see sql/functions/archive_records.sql.
--
-- Parameters:
--   $1 bigint  boundary
-- Columns:
--   archive_records  boolean

select archive_records($1)
