-- Makes the transaction look assignments up by index: planned for a few thousand SIM cards at once,
-- each statement would read the whole inventory.
--
-- Parameters: none
-- Columns: the settings

select
    set_config('enable_hashjoin', 'off', true) as hashjoin,
    set_config('enable_mergejoin', 'off', true) as mergejoin
