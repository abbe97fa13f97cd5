-- Copies the usage records of a small batch to the row store. No parameters; the input is binary
-- COPY data.

copy usage_records_recent (posting, time, sim_card_id, organization_id, bytes) from stdin (format binary)
