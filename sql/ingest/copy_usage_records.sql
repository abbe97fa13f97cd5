-- Stores usage records. The client encodes the tuples: see src/db/copy.rs, whose encoder names the same
-- columns in the same order.

copy usage_records (time, sim_card_id, organization_id, bytes) from stdin (format binary)
