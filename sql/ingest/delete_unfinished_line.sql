-- Deletes the rejected record at or after a source's position: a last line without a line end,
-- which is now read again.
--
-- Parameters:
--   $1 bigint  id of the source
--   $2 bigint  position

delete from rejected_records where source_id = $1 and position >= $2
