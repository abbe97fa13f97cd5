-- Moves chunks of a relation to the columnstore once they reach an age.
--
-- Parameters:
--   $1 text    relation
--   $2 bigint  age in seconds

call add_columnstore_policy($1::text::regclass, after => make_interval(secs => $2::bigint))
