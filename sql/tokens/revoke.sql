-- Revokes a token. One that is already revoked keeps its time. Updates no row if there is no such
-- token.
--
-- Parameters:
--   $1 text  name

update tokens
set revoked_at = coalesce(revoked_at, now())
where name = $1
