-- Whether a SIM card and an organization have these ids, as they had when `newest_ids.sql` read them.
--
-- Parameters; null if there was none:
--   $1 integer  id of the SIM card
--   $2 text     its ICCID
--   $3 integer  id of the organization
--   $4 text     its name
-- Columns:
--   has_ids  bool

select
    ($1::integer is null or exists (select from sim_cards where id = $1 and iccid = $2))
    and ($3::integer is null or exists (select from organizations where id = $3 and name = $4))
        as has_ids
