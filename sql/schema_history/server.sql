-- What TimescaleDB the server offers and has in this database.
--
-- Parameters: none
--
-- Columns; no row where the server offers none:
--   available  text  version that `create extension` would install
--   installed  text  version that is installed; null where none is
--   license    text  'timescale' or 'apache'; null while the library is not loaded

select
    default_version as available,
    installed_version as installed,
    current_setting('timescaledb.license', true) as license
from pg_available_extensions
where name = 'timescaledb'
