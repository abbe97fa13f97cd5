-- The key that authenticates page cursors.
--
-- Parameters: none
-- Columns:
--   key  bytea  32 bytes

select key
from cursor_key
