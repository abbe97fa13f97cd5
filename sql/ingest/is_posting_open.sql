-- Whether a batch before a boundary may still commit: see sql/functions/is_posting_open.sql.
--
-- Parameters:
--   $1 bigint  boundary
-- Columns:
--   is_open  boolean

select is_posting_open($1) as is_open
