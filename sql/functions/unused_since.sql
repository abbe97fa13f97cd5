-- The instant before which a level must have been closed, or a span merged, so that what it replaced can
-- be dropped: a minute ago, or when the oldest snapshot of another session was taken.
--
-- Columns:
--   unused_since  timestamptz

create or replace function unused_since() returns timestamptz
language sql
stable
as $$
    select least(
        now() - interval '1 minute',
        (
            select min(xact_start)
            from pg_stat_activity
            where datname = current_database() and backend_xmin is not null and pid <> pg_backend_pid()
        )
    )
$$
