-- Removes assignments, or ends of assignments. Stored usage records keep their organizations.
--
-- Parameters, parallel arrays:
--   $1 integer[]      ids of the SIM cards
--   $2 timestamptz[]  valid from; null: no start

delete from sim_card_assignments as assignments
using unnest($1::integer[], $2::timestamptz[]) as given (sim_card_id, valid_from)
where assignments.sim_card_id = given.sim_card_id
    and assignments.valid_from = coalesce(given.valid_from, '-infinity')
