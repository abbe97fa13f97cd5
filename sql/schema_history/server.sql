-- What the schema needs to know about the server and the database.
--
-- Parameters: none
-- Columns:
--   available     text  version of TimescaleDB that `create extension` would install; null if none
--   installed     text  version installed in this database; null if none is
--   license       text  'timescale' or 'apache'; null while the library is not loaded
--   database      text  name of the database
--   encoding      text  encoding of the database
--   is_standby    bool  whether the server replays another server's changes
--   is_read_only  bool  whether transactions are read-only by default

select
    extension.default_version as available,
    extension.installed_version as installed,
    current_setting('timescaledb.license', true) as license,
    current_database()::text as database,
    current_setting('server_encoding') as encoding,
    pg_is_in_recovery() as is_standby,
    current_setting('default_transaction_read_only')::boolean as is_read_only
from (values (1)) as always (row)
left join (
    select default_version, installed_version
    from pg_available_extensions
    where name = 'timescaledb'
) as extension on true
