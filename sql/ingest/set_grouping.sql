-- Adapts the refresh of a level to its number of groups. With many SIM cards, a period has about as many
-- groups by SIM card as records, and sorting takes half as long as hashing; by organization, it takes
-- three times as long.
--
-- Parameters:
--   $1 text  a level of usage_levels
-- Columns:
--   set_config  text

select set_config(
    'enable_hashagg',
    case when $1 like 'sim_card_usage%' and (select max(id) from sim_cards) > 100000 then 'off' else 'on' end,
    false
)
