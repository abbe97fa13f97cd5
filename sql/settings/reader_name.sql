-- The name of the role that can read this database. Roles belong to the whole server, so each database
-- has its own.
--
-- Parameters: none
-- Columns:
--   name  text

select
    'simusage_reader_' || case
        -- A name has at most 63 bytes.
        when current_database() ~ '^[a-z0-9_]{1,47}$' then current_database()::text
        else md5(current_database())
    end as name
