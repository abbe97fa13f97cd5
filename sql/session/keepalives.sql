-- Lets the server notice within a minute that its client has vanished. Without keepalives it could
-- wait for hours, and keep the locks of the lost session.
--
-- Parameters: none
-- Columns:
--   set_config  text, three times

select
    set_config('tcp_keepalives_idle', '30', false),
    set_config('tcp_keepalives_interval', '10', false),
    set_config('tcp_keepalives_count', '3', false)
