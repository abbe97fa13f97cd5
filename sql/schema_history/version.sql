-- The version of the schema, compared with this program's SQL functions.
--
-- Parameters, parallel arrays:
--   $1 text[]  names of the functions
--   $2 text[]  SHA-256 of their files
-- Columns:
--   number    integer  the newest migration that has been applied; null if none has
--   outdated  text[]   the functions that have not been applied from these files, in order

select
    (select max(number) from simusage_migrations) as number,
    array(
        select wanted.name
        from unnest($1::text[], $2::text[]) with ordinality as wanted (name, checksum, position)
        where not exists (
            select
            from simusage_functions as applied
            where applied.name = wanted.name and applied.checksum = wanted.checksum
        )
        order by wanted.position
    ) as outdated
