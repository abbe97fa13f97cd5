-- Waits for other loads of the inventory to end, and keeps them waiting until the transaction ends.
--
-- Parameters: none
-- Columns:
--   assignments    bigint
--   has_sim_cards  boolean

select assignments, exists (select from sim_cards) as has_sim_cards
from inventory_version
for update
