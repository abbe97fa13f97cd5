-- The ids of organizations.
--
-- Parameters:
--   $1 text[]  names, each of an organization that exists
-- Columns, ordered as $1:
--   id  integer

select organizations.id
from unnest($1::text[]) with ordinality as given (name, number)
join organizations on organizations.name = given.name
order by given.number
