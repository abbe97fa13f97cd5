-- One page of the inventory: which SIM card belongs to which organization, and since when.
--
-- Parameters:
--   $1 integer[]    the organizations that may be seen, by their keys; null for all
--   $2 text         only assignments to this organization; null for all
--   $3 text         only where the SIM card or the organization begins so; null for all
--   $4 text         only what comes behind this SIM card; null for all
--   $5 timestamptz  and this instant of its assignments; null for since ever
--   $6 bigint       rows of the page; null for all
--   $7 bigint       rows before the page
--
-- Columns:
--   total              bigint       assignments of the whole list; null where $4 is given, as the first page has told it
--   inventory_version  bigint       grows whenever the inventory was loaded
--   sim_card           text         the SIM card's ICCID; null where the page has no row
--   organization       text         the organization's name
--   valid_from         timestamptz  since when; null for since ever, as the driver cannot read '-infinity'
--
-- No row: there is no such organization, or it may not be seen. One row with a null sim_card: the page is empty.

with organization as (
    select id from organizations where name = $2 and ($1::integer[] is null or id = any($1))
),
listed as (
    select sim_cards.iccid as sim_card, organizations.name as organization, sim_card_assignments.valid_from
    from sim_card_assignments
    join sim_cards on sim_cards.id = sim_card_assignments.sim_card_id
    join organizations on organizations.id = sim_card_assignments.organization_id
    where ($1 is null or sim_card_assignments.organization_id = any($1))
        and ($2::text is null or sim_card_assignments.organization_id = (select id from organization))
        and ($3::text is null or starts_with(sim_cards.iccid, $3) or starts_with(organizations.name, $3))
),
page as (
    select sim_card, organization, valid_from
    from listed
    where $4::text is null or (sim_card, valid_from) > ($4, coalesce($5::timestamptz, '-infinity'))
    order by sim_card, valid_from
    limit $6 offset $7
)
select
    case when $4 is null then (select count(*) from listed) end as total,
    (select version from inventory_version) as inventory_version,
    page.sim_card,
    page.organization,
    nullif(page.valid_from, '-infinity') as valid_from
from (values (1)) as always
left join page on true
where $2 is null or exists (select from organization)
order by page.sim_card, page.valid_from
