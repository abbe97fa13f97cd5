-- Allows the current transaction to delete usage records: see refuse_change in migration 0002.
--
-- Parameters: none
-- Columns:
--   set_config  text

select set_config('simusage.change_records', 'on', true)
