-- Whether any migration was ever begun.
--
-- Parameters: none
--
-- Columns:
--   exists  boolean

select to_regclass('simusage_migrations') is not null as exists
