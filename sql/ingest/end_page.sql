-- Ends the current page: see sql/functions/end_page.sql.
--
-- Parameters: none
-- Columns:
--   boundary  bigint

select end_page() as boundary
