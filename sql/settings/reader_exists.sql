-- Whether the role simusage_reader exists.
--
-- Parameters: none
-- Columns:
--   exists  boolean

select exists (select from pg_roles where rolname = 'simusage_reader')
