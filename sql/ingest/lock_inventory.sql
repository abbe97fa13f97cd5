-- Waits for other loads of the inventory to end, and keeps them waiting until the transaction ends.
--
-- Parameters: none
-- Columns:
--   entries        bigint   assignments, and ends of assignments
--   has_sim_cards  boolean

select assignments + ends as entries, exists (select from sim_cards) as has_sim_cards
from inventory_version
for update
