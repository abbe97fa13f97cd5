-- Ends the move of old chunks to the columnstore, if there is one.
--
-- Parameters:
--   $1 text  relation

call remove_columnstore_policy($1::text::regclass, if_exists => true)
