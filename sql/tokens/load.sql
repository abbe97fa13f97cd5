-- All tokens, revoked ones included, for authentication.
--
-- Parameters: none
-- Columns:
--   id             integer
--   name           text
--   hash           bytea        SHA-256 of its text
--   organizations  integer[]    ids of the organizations it gives access to; null for all
--   expires_at     timestamptz  first instant at which it is invalid; null: it does not expire
--   revoked        boolean

select
    id,
    name,
    hash,
    case when not sees_everything then
        array(
            select organization_id
            from token_organizations
            where token_id = tokens.id
            order by organization_id
        )
    end as organizations,
    expires_at,
    revoked_at is not null as revoked
from tokens
