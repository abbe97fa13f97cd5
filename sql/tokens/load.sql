-- Every token there ever was, for telling who asks.
--
-- Parameters: none
-- Columns:
--   id             integer
--   name           text
--   hash           bytea        SHA-256 of its text
--   organizations  integer[]    numbers of those it is bound to; null where it sees everything
--   expires_at     timestamptz  first instant at which it is no longer valid; null: never
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
