-- Has TimescaleDB make the chunks of some hours, by a record in each of them. sql/ingest/unmark_hours.sql takes these away
-- again, in the same transaction, so that nobody ever sees them.
--
-- Parameters:
--   $1 timestamptz[]  the hours
--
-- Columns: none

insert into usage_records (time, sim_card_id, organization_id, bytes)
select hour, 0, 0, 0 from unnest($1::timestamptz[]) as hour
