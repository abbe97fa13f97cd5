-- Whether a role exists, and whether this user may create it.
--
-- Parameters:
--   $1 text  name
-- Columns:
--   exists      boolean
--   may_create  boolean
--   command     text     create role …

select
    exists (select from pg_roles where rolname = $1::text) as exists,
    (select rolsuper or rolcreaterole from pg_roles where rolname = current_user) as may_create,
    format('create role %I nologin', $1::text) as command
