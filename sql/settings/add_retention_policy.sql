-- Drops chunks at an age.
--
-- Parameters:
--   $1 text    relation
--   $2 bigint  age in seconds
-- Columns: none of interest

select add_retention_policy($1::text::regclass, drop_after => make_interval(secs => $2::bigint))
