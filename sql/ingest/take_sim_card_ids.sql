-- Takes consecutive ids for new SIM cards. No other load may run, because two statements at once
-- could take the same ids.
--
-- Parameters:
--   $1 bigint  how many
-- Columns:
--   last  bigint  the last of them

select setval(sequence, nextval(sequence) + $1 - 1) as last
from cast(pg_get_serial_sequence('sim_cards', 'id') as regclass) as sequence
