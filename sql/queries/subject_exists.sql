-- Whether a SIM card or an organization exists and the caller may see it, as in usage_series.
--
-- Parameters:
--   $1  text       ICCID; null for an organization
--   $2  text       name of the organization; null for a SIM card
--   $3  integer[]  ids of the organizations that the caller may see; null for all
--
-- Columns:
--   is_visible  boolean

select
    exists (
        select from sim_cards where iccid = $1 and sees_sim_card(id, $3::integer[])
    )
    or exists (
        select from organizations where name = $2 and ($3 is null or id = any($3))
    ) as is_visible
