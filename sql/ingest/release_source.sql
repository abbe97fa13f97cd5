-- Ends the claim of this session to a source.
--
-- Parameters:
--   $1 bigint  id of the source
-- Columns:
--   released  boolean

select pg_advisory_unlock(-($1::bigint)) as released
