-- Locks the registration of files until the transaction ends, so that each run sees the files of all
-- others before it adds its own.
--
-- Parameters: none
-- Columns: none of use

select pg_advisory_xact_lock(4611686018427387902)
