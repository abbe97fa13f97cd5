-- Gives assignments to other organizations. Stored usage records keep theirs.
--
-- Parameters, parallel arrays:
--   $1 integer[]      ids of the SIM cards
--   $2 timestamptz[]  valid from; null: no start
--   $3 integer[]      ids of the organizations; null: the assignment ends instead

update sim_card_assignments as assignments
set organization_id = given.organization_id
from unnest($1::integer[], $2::timestamptz[], $3::integer[])
    as given (sim_card_id, valid_from, organization_id)
where assignments.sim_card_id = given.sim_card_id
    and assignments.valid_from = coalesce(given.valid_from, '-infinity')
