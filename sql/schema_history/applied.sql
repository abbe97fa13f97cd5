-- The migrations that have been applied.
--
-- Parameters: none
-- Columns, ordered by number:
--   number    integer
--   name      text
--   checksum  text  SHA-256 of the file when it was applied

select number, name, checksum from simusage_migrations order by number
