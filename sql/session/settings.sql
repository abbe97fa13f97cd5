-- Sets what every session relies on, whatever the defaults of the server, the database and the role
-- are: how values are written and read, the isolation of transactions, and no time limits. Skips
-- settings that the server does not have.
--
-- Parameters: none
-- Columns:
--   set_config  text

select set_config(wanted.name, wanted.value, false)
from
    (
        values
        ('TimeZone', 'UTC'),
        ('DateStyle', 'ISO, MDY'),
        ('IntervalStyle', 'postgres'),
        ('array_nulls', 'on'),
        ('quote_all_identifiers', 'off'),
        ('default_table_access_method', 'heap'),
        ('default_transaction_deferrable', 'off'),
        ('default_transaction_isolation', 'read committed'),
        ('idle_in_transaction_session_timeout', '0'),
        ('idle_session_timeout', '0'),
        ('lock_timeout', '0'),
        ('statement_timeout', '0'),
        ('transaction_timeout', '0')
    ) as wanted (name, value)
where current_setting(wanted.name, true) is not null
