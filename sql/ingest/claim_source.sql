-- Claims a source for this session, so that other runs see that it is being ingested. Has no effect if
-- another session has claimed it; the position in the ledger decides which of them stores it.
--
-- Parameters:
--   $1 bigint  id of the source
-- Columns:
--   claimed  boolean

select pg_try_advisory_lock(-($1::bigint)) as claimed
