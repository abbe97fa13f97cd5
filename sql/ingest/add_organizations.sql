-- Adds the organizations that do not exist yet.
--
-- Existing ones are filtered out before the insert, because every conflict would use up an id.
--
-- Parameters:
--   $1 text[]  names of organizations

insert into organizations (name)
select distinct name
from unnest($1::text[]) as given (name)
where not exists (select from organizations where organizations.name = given.name)
on conflict do nothing
