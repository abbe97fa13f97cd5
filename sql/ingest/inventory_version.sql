-- How often the inventory has changed, and its size.
--
-- Parameters: none
-- Columns:
--   version      bigint
--   assignments  bigint

select version, assignments from inventory_version
