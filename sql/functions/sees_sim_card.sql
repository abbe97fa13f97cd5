-- Whether a caller who may see some organizations sees a SIM card: if it is or was assigned to one of
-- them, or usage of it is stored for one of them. Usage stays with the organization that it was stored
-- for when the inventory is corrected, and lists show it.
--
-- Parameters:
--   sim_card       integer
--   organizations  integer[]  null for all
-- Columns:
--   sees_sim_card  boolean

create or replace function sees_sim_card(sim_card integer, organizations integer[]) returns boolean
language plpgsql
stable
set plan_cache_mode = force_generic_plan
as $$
declare
    parts text;
    sees boolean := organizations is null or exists (
        select from sim_card_assignments where sim_card_id = sim_card and organization_id = any(organizations)
    );
begin
    if sees then
        return true;
    end if;
    select sim_card_parts(sim_card, organizations, '{}', array[kept_from::timestamp at time zone 'UTC', 'infinity'])
    into parts
    from usage_levels
    where level = 'sim_card_usage';
    if parts is not null then
        execute 'select exists (' || parts || ')' into sees;
    end if;
    return sees;
end
$$
