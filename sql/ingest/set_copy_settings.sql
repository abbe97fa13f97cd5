-- Makes COPY write directly to the columnstore, if the server can. The batches are sorted already;
-- TimescaleDB is not told so, because it would take several of them as one sorted run.
--
-- Parameters: none
-- Columns; no row for settings that the server does not have:
--   set_config  text

select set_config(settings.name, wanted.value, false)
from pg_settings as settings
join (
    values
        ('timescaledb.enable_direct_compress_copy', 'on'),
        ('timescaledb.enable_direct_compress_copy_sort_batches', 'off')
) as wanted (name, value) on wanted.name = settings.name
