-- The version of the inventory, which differs after each change, and its size.
--
-- Parameters: none
-- Columns:
--   version      bigint
--   assignments  bigint

select version, assignments from inventory_version
