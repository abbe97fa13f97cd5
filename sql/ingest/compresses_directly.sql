-- Whether COPY writes straight into the columnstore in this session.
--
-- Parameters: none
-- Columns:
--   compresses_directly  boolean

select coalesce(current_setting('timescaledb.enable_direct_compress_copy', true)::boolean, false) as compresses_directly
