-- Stops moving chunks of a relation to the columnstore, if there is such a policy.
--
-- Parameters:
--   $1 text  relation

call remove_columnstore_policy($1::text::regclass, if_exists => true)
