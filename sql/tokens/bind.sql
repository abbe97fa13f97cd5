-- Gives a token access to organizations.
--
-- Parameters:
--   $1 integer  id of the token
--   $2 text[]   names of the organizations
-- Columns:
--   name  text  of each organization that exists

with bound as (
    insert into token_organizations (token_id, organization_id)
    select $1, id
    from organizations
    where name = any($2)
    returning organization_id
)
select name
from organizations
join bound on bound.organization_id = organizations.id
