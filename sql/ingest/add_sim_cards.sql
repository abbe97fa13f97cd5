-- Adds the SIM cards that do not exist yet.
--
-- Existing ones are filtered out before the insert, because every conflict would use up an id.
--
-- Parameters:
--   $1 text[]  ICCIDs

insert into sim_cards (iccid)
select distinct iccid
from unnest($1::text[]) as given (iccid)
where not exists (select from sim_cards where sim_cards.iccid = given.iccid)
on conflict do nothing
