-- Updates why records are rejected, after a replay.
--
-- Parameters, parallel arrays except the last:
--   $1 bigint[]  ids of rejected records
--   $2 text[]    reasons
--   $3 text[]    invalid fields; null if the reason concerns none
--   $4 text[]    details
--   $5 text      version of the program

update rejected_records as rejected
set reason = given.reason, field = given.field, detail = given.detail, version = $5
from unnest($1::bigint[], $2::text[], $3::text[], $4::text[]) as given (id, reason, field, detail)
where rejected.id = given.id
