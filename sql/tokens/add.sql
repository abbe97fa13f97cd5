-- Adds a token.
--
-- Parameters:
--   $1 text         name
--   $2 bytea        SHA-256 of its text
--   $3 boolean      whether it sees everything, rather than what it is bound to
--   $4 timestamptz  first instant at which it is no longer valid; null: never
--
-- Columns:
--   id  integer  its number
--
-- No row: the name is taken.

insert into tokens (name, hash, sees_everything, expires_at)
values ($1, $2, $3, $4)
on conflict (name) do nothing
returning id
