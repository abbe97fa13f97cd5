-- The SIM card and the organization that were added last. Ids grow with each load of the inventory,
-- and nothing is ever deleted, so a database that has these also has those that were added earlier.
--
-- Parameters: none
-- Columns; null if there is none:
--   sim_card           int4  id
--   iccid              text
--   organization       int4  id
--   organization_name  text

select
    sim_cards.id as sim_card,
    sim_cards.iccid,
    organizations.id as organization,
    organizations.name as organization_name
from
    (select max(id) as id from sim_cards) as last_sim_card
    cross join (select max(id) as id from organizations) as last_organization
    left join sim_cards on sim_cards.id = last_sim_card.id
    left join organizations on organizations.id = last_organization.id
