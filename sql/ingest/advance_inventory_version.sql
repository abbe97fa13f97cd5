-- Counts a load of the inventory, in its transaction.
--
-- Parameters: none

update inventory_version set version = version + 1
