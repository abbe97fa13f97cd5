-- Drops what has been archived or merged, and what is older than retention allows: see
-- sql/functions/drop_archived.sql, drop_merged.sql and drop_expired.sql.
--
-- Parameters: none
-- Columns, always one row:
--   archived  bigint  number of dropped chunks of the row store
--   merged    bigint  number of dropped chunks of sim_card_usage
--   expired   text    levels of which chunks were dropped, with the first day that is complete; null
--                     if there are none

select
    (select count(*) from drop_archived()) as archived,
    (select count(*) from drop_merged()) as merged,
    (
        select string_agg(level || ' before ' || kept_from, ', ')
        from (
            select level, drop_expired(level, now()) as kept_from from usage_levels where keep_days is not null
        ) as dropped
        where kept_from is not null
    ) as expired
