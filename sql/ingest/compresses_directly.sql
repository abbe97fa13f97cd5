-- Whether COPY in this session writes directly to the columnstore.
--
-- Parameters: none
-- Columns:
--   compresses_directly  boolean

select coalesce(current_setting('timescaledb.enable_direct_compress_copy', true)::boolean, false) as compresses_directly
