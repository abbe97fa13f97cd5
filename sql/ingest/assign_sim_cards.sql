-- Assigns SIM cards to organizations, each from an instant on. An assignment of the same SIM card from the
-- same instant is replaced; records that are stored keep the organization they were stamped with.
--
-- Parameters, one row each across the arrays:
--   $1 text[]         SIM cards
--   $2 text[]         organizations
--   $3 timestamptz[]  from when on; null: since ever

insert into sim_card_assignments as present (sim_card_id, valid_from, organization_id)
select sim_cards.id, coalesce(given.valid_from, '-infinity'), organizations.id
from unnest($1::text[], $2::text[], $3::timestamptz[]) as given (iccid, organization, valid_from)
join sim_cards on sim_cards.iccid = given.iccid
join organizations on organizations.name = given.organization
on conflict (sim_card_id, valid_from) do update
set organization_id = excluded.organization_id
where present.organization_id <> excluded.organization_id
