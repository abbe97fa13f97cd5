-- The usage that is stored for another organization than the inventory has now: see
-- sql/functions/inventory_differences.sql.
--
-- Parameters: none
-- Columns:
--   stored     text
--   current    text
--   sim_cards  bigint
--   records    bigint
--   bytes      text

select stored, current, sim_cards, records, bytes::text as bytes from inventory_differences()
