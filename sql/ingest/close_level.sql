-- Records that a level contains everything before a boundary: see sql/functions/close_level.sql.
--
-- Parameters:
--   $1 text    level
--   $2 bigint  boundary
-- Columns:
--   close_level  boolean

select close_level($1, $2)
