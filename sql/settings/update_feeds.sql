-- Sets the feed of every source that has another one, after a change of the patterns.
--
-- Parameters: none

update ingest_sources
set feed = feed_of(kind, identity, name)
where feed <> feed_of(kind, identity, name)
