-- The migrations that have been applied.
--
-- Parameters: none
--
-- Columns, by number:
--   number    integer
--   name      text
--   checksum  text  SHA-256 of the file as it was then

select number, name, checksum from simusage_migrations order by number
