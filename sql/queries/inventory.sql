-- One page of the inventory: which organization each SIM card is assigned to, and since when.
--
-- Parameters:
--   $1 integer[]    ids of the organizations that the caller may see; null for all
--   $2 text         only assignments to this organization; null for all
--   $3 text         only SIM cards or organizations that start with this; null for all
--   $4 text         only assignments after this SIM card; null for all
--   $5 timestamptz  and after this valid_from of it; null: no start
--   $6 bigint       maximum number of rows; null for all
--   $7 bigint       number of rows to skip
--
-- Columns:
--   total              bigint       assignments on all pages; null if $4 is given: the client has it
--                                   from the first page
--   inventory_version  bigint       grows whenever the inventory is loaded
--   sim_card           text         ICCID; null if the page is empty
--   organization       text         name
--   valid_from         timestamptz  null: no start (the driver cannot read '-infinity')
--
-- No row: the organization does not exist, or the caller may not see it. An empty page is one row
-- with a null sim_card.

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
