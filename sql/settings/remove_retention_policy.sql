-- Keeps everything from now on.
--
-- Parameters:
--   $1 text  relation
-- Columns: none of interest

select remove_retention_policy($1::text::regclass, if_exists => true)
