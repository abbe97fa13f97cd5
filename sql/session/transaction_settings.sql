-- Sets what every query relies on, for one transaction in a session that other programs use, too.
-- `settings.sql` does this for a session.
--
-- Parameters: none
-- Columns:
--   set_config  text

select set_config(wanted.name, wanted.value, true)
from
    (
        values
        ('TimeZone', 'UTC'),
        ('DateStyle', 'ISO, MDY'),
        ('IntervalStyle', 'postgres'),
        ('idle_in_transaction_session_timeout', '0'),
        ('lock_timeout', '0'),
        ('transaction_timeout', '0')
    ) as wanted (name, value)
where current_setting(wanted.name, true) is not null
