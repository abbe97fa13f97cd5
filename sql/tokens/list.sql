-- All tokens, revoked ones included, the oldest first, without hashes, for `simusage token list`.
--
-- Parameters: none
-- Columns:
--   name           text
--   organizations  text[]       names of the organizations it gives access to; null for all
--   created_at     timestamptz
--   expires_at     timestamptz  first instant at which it is invalid; null: it does not expire
--   revoked_at     timestamptz  null: it is not revoked

select
    name,
    case when not sees_everything then
        array(
            select organizations.name
            from token_organizations
            join organizations on organizations.id = token_organizations.organization_id
            where token_organizations.token_id = tokens.id
            order by organizations.name
        )
    end as organizations,
    created_at,
    expires_at,
    revoked_at
from tokens
order by id
