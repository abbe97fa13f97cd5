-- Revokes a token. One that was revoked before keeps its instant.
--
-- Parameters:
--   $1 text  name
--
-- No row is changed where there is no such token.

update tokens
set revoked_at = coalesce(revoked_at, now())
where name = $1
