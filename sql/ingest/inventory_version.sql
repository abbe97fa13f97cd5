-- How often the inventory has been loaded.
--
-- Parameters: none
-- Columns:
--   version  bigint

select version from inventory_version
