-- Takes the posting number of a batch: see sql/functions/begin_posting.sql.
--
-- Parameters: none
-- Columns:
--   posting  bigint

select begin_posting() as posting
