-- Drops chunks of a relation once they reach an age.
--
-- Parameters:
--   $1 text    relation
--   $2 bigint  age in seconds
-- Columns: ignored

select add_retention_policy($1::text::regclass, drop_after => make_interval(secs => $2::bigint))
