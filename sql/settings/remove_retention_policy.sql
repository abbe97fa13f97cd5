-- Stops dropping chunks of a relation, if there is such a policy.
--
-- Parameters:
--   $1 text  relation
-- Columns: ignored

select remove_retention_policy($1::text::regclass, if_exists => true)
