-- Stores usage records. The client encodes them with these columns in this order: see
-- encode_usage_record in src/db/copy.rs.

copy usage_records (time, sim_card_id, organization_id, bytes) from stdin (format binary)
