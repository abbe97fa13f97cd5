-- The SIM cards that exist, with their assignments.
--
-- Parameters:
--   $1 text[]  ICCIDs
-- Columns:
--   number           bigint       position in $1, from 1
--   sim_card_id      integer
--   valid_from       timestamptz  null: no start, or no assignment
--   organization_id  integer      null: no assignment, or the end of one
--   is_entry         boolean      false: no assignment

select
    given.number,
    sim_cards.id as sim_card_id,
    nullif(assignments.valid_from, '-infinity') as valid_from,
    assignments.organization_id,
    assignments.sim_card_id is not null as is_entry
from unnest($1::text[]) with ordinality as given (iccid, number)
join sim_cards on sim_cards.iccid = given.iccid
left join sim_card_assignments as assignments on assignments.sim_card_id = sim_cards.id
