-- Whether there is the role that `serve` can read with.
--
-- Parameters: none
-- Columns:
--   exists  boolean

select exists (select from pg_roles where rolname = 'simusage_reader')
