-- Deletes the placeholders that src/db/postings.rs has stored in the same transaction to create
-- chunks. No SIM card has the id 0.
--
-- Parameters:
--   $1 bigint  their posting

with bulk as (
    delete from usage_records where posting = $1 and sim_card_id = 0
)
delete from usage_records_recent where posting = $1 and sim_card_id = 0
