-- Copies the usage records of a large batch to the columnstore. No parameters; the input is binary
-- COPY data.

copy usage_records (posting, time, sim_card_id, organization_id, bytes) from stdin (format binary)
