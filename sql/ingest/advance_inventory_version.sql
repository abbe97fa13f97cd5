-- Counts a load of the inventory, in the same transaction.
--
-- Parameters: none

update inventory_version set version = version + 1
