-- Assigns SIM cards to organizations, each from an instant on. Replaces an assignment of the same
-- SIM card from the same instant. Stored usage records keep their organization.
--
-- Parameters, parallel arrays:
--   $1 text[]         ICCIDs
--   $2 text[]         names of organizations
--   $3 timestamptz[]  valid from; null: no start

insert into sim_card_assignments as present (sim_card_id, valid_from, organization_id)
select sim_cards.id, coalesce(given.valid_from, '-infinity'), organizations.id
from unnest($1::text[], $2::text[], $3::timestamptz[]) as given (iccid, organization, valid_from)
join sim_cards on sim_cards.iccid = given.iccid
join organizations on organizations.name = given.organization
on conflict (sim_card_id, valid_from) do update
set organization_id = excluded.organization_id
where present.organization_id <> excluded.organization_id
