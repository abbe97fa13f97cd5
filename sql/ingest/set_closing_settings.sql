-- Makes refreshes and INSERT write directly to the columnstore, if the server can.
--
-- Parameters: none
-- Columns; no row for settings that the server does not have:
--   set_config  text

select set_config(settings.name, wanted.value, false)
from pg_settings as settings
join (
    values
        ('timescaledb.enable_direct_compress_on_cagg_refresh', 'on'),
        ('timescaledb.enable_direct_compress_insert', 'on'),
        ('timescaledb.direct_compress_insert_tuple_sort_limit', '2000000'),
        ('work_mem', '256MB')
) as wanted (name, value) on wanted.name = settings.name
