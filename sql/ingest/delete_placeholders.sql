-- Deletes the placeholder records that src/db/chunks.rs has stored in the same transaction to
-- create chunks. No SIM card has the id 0.
--
-- Parameters:
--   $1 timestamptz[]  their times

delete from usage_records where time = any($1) and sim_card_id = 0 and organization_id = 0
