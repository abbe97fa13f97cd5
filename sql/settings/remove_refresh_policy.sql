-- Stops the background refresh of a continuous aggregate, if there is one.
--
-- Parameters:
--   $1 text  continuous aggregate
-- Columns: ignored

select remove_continuous_aggregate_policy($1::text::regclass, if_exists => true)
