-- Which version and license of TimescaleDB the server has.
--
-- Parameters: none
-- Columns; no row if the server has none:
--   available  text  version that `create extension` would install
--   installed  text  version installed in this database; null if none is
--   license    text  'timescale' or 'apache'; null while the library is not loaded

select
    default_version as available,
    installed_version as installed,
    current_setting('timescaledb.license', true) as license
from pg_available_extensions
where name = 'timescaledb'
