-- Adds the organizations that are new.
--
-- Those that are known are left out before the insert, because a conflict would use up a number each.
--
-- Parameters:
--   $1 text[]  organizations

insert into organizations (name)
select distinct name
from unnest($1::text[]) as given (name)
where not exists (select from organizations where organizations.name = given.name)
on conflict do nothing
