-- The whole inventory with the numbers that usage records carry.
--
-- Parameters: none
-- Columns, by SIM card and time:
--   iccid            text         SIM card
--   sim_card_id      integer      its number
--   valid_from       timestamptz  from when on; null: since ever
--   organization_id  integer      the organization's number

select
    sim_cards.iccid,
    sim_cards.id as sim_card_id,
    nullif(assignments.valid_from, '-infinity') as valid_from,
    assignments.organization_id
from sim_cards
join sim_card_assignments as assignments on assignments.sim_card_id = sim_cards.id
order by sim_cards.id, assignments.valid_from
