-- Takes the posting number of a batch, which is open until the transaction ends, however it ends.
-- A page is closed only when none of its batches is open.
--
-- Neither waits for others nor makes them wait: the lock is shared, and nobody takes it exclusively.
-- The sequence is read again after the lock. If the page has ended in between, its closer may have
-- missed the lock, so the batch takes a number of the next page.
--
-- Columns:
--   begin_posting  bigint

create or replace function begin_posting() returns bigint
language plpgsql
volatile
as $$
declare
    number bigint;
begin
    loop
        number := nextval('posting_numbers');
        perform pg_advisory_xact_lock_shared(4611686018427387904 + (number >> 20));
        exit when (select last_value >> 20 from posting_numbers) = number >> 20;
    end loop;
    return number;
end
$$
