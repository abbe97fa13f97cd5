-- Adds the SIM cards that are new.
--
-- Those that are known are left out before the insert, because a conflict would use up a number each.
--
-- Parameters:
--   $1 text[]  SIM cards

insert into sim_cards (iccid)
select distinct iccid
from unnest($1::text[]) as given (iccid)
where not exists (select from sim_cards where sim_cards.iccid = given.iccid)
on conflict do nothing
