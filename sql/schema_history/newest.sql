-- The newest migration that has been applied.
--
-- Parameters: none
--
-- Columns:
--   number  integer  null where there is none

select max(number) as number from simusage_migrations
