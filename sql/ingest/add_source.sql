-- Adds a source with nothing stored, unless it exists.
--
-- Parameters:
--   $1 text     kind
--   $2 text     identity
--   $3 integer  how many bytes of a file the identity covers; null for other kinds
--   $4 text     name

insert into ingest_sources (kind, identity, head_bytes, name) values ($1, $2, $3, $4)
on conflict do nothing
