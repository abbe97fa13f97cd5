-- One page of the inventory: which SIM card belongs to which organization, and since when.
--
-- Parameters:
--   $1 bigint  rows of a page
--   $2 bigint  rows before the page
--
-- Columns:
--   total         bigint       assignments of the whole inventory
--   sim_card      text         the SIM card's ICCID; null where the page has no row
--   organization  text         the organization's name
--   valid_from    timestamptz  since when; null for since ever, as the driver cannot read '-infinity'
--
-- Always a row. One row with a null sim_card: the page is empty.

with totals as (
    select count(*) as total from sim_card_assignments
),
page as (
    select
        sim_cards.iccid as sim_card,
        organizations.name as organization,
        nullif(sim_card_assignments.valid_from, '-infinity') as valid_from
    from sim_card_assignments
    join sim_cards on sim_cards.id = sim_card_assignments.sim_card_id
    join organizations on organizations.id = sim_card_assignments.organization_id
    order by sim_cards.iccid, sim_card_assignments.valid_from
    limit $1 offset $2
)
select totals.total, page.sim_card, page.organization, page.valid_from
from totals
left join page on true
order by page.sim_card, page.valid_from nulls first;
