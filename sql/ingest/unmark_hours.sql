-- Takes away the records that src/db/chunks.rs has put into some hours, in the same transaction. No SIM card has the key 0.
--
-- Parameters:
--   $1 timestamptz[]  the hours
--
-- Columns: none

delete from usage_records where time = any($1) and sim_card_id = 0 and organization_id = 0
