-- Adds a source with nothing stored, unless it exists.
--
-- Parameters:
--   $1 text  kind
--   $2 text  identity
--   $3 text  name

insert into ingest_sources (kind, identity, name) values ($1, $2, $3)
on conflict do nothing
