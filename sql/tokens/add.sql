-- Adds a token.
--
-- Parameters:
--   $1 text         name
--   $2 bytea        SHA-256 of its text
--   $3 boolean      whether it gives access to all organizations
--   $4 timestamptz  first instant at which it is invalid; null: it does not expire
-- Columns; no row if the name is taken:
--   id  integer

insert into tokens (name, hash, sees_everything, expires_at)
values ($1, $2, $3, $4)
on conflict (name) do nothing
returning id
