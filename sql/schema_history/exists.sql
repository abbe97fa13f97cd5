-- Whether simusage has started to migrate this database.
--
-- Parameters: none
-- Columns:
--   exists  boolean

select to_regclass('simusage_migrations') is not null as exists
