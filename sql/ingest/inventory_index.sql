-- The whole inventory, with the ids that usage records contain.
--
-- Parameters: none
-- Columns, ordered by SIM card and valid_from:
--   iccid            text
--   sim_card_id      integer
--   valid_from       timestamptz  null: no start
--   organization_id  integer

select
    sim_cards.iccid,
    sim_cards.id as sim_card_id,
    nullif(assignments.valid_from, '-infinity') as valid_from,
    assignments.organization_id
from sim_cards
join sim_card_assignments as assignments on assignments.sim_card_id = sim_cards.id
order by sim_cards.id, assignments.valid_from
