-- Adds a source of which nothing is stored, unless it is there.
--
-- Parameters:
--   $1 text     kind
--   $2 text     identity
--   $3 integer  length of the beginning that a file is known by; null for others
--   $4 text     name

insert into ingest_sources (kind, identity, head_bytes, name) values ($1, $2, $3, $4)
on conflict do nothing
