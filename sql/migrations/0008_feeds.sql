-- Feeds: groups of sources that deliver the same kind of records, for example the files of one gateway, or
-- the partitions of a topic. See sql/functions/feeds.sql.

-- How sources are told apart, from [feeds] in config.toml. Row 0 applies to all others, and has no
-- pattern.
create table feed_patterns (
    number integer primary key,
    -- For `like`.
    pattern text,
    -- As configured; the name of the feed.
    feed text,
    -- How much longer than the feed that was stored last it may be silent; null: any time.
    silent_after interval
);

insert into feed_patterns values (0, null, null, interval '24 hours');

alter table ingest_sources add column feed text collate "C" not null default '';

-- Sets the feed of a source.
create function follow_source_name() returns trigger language plpgsql as $$
begin
    new.feed := feed_of(new.kind, new.identity, new.name);
    return new;
end
$$;

create trigger follow_source_name before insert or update of name on ingest_sources
for each row execute function follow_source_name();

create index on ingest_sources (feed, updated_at);
create index on ingest_sources (feed, newest_record_at) where kind <> 'kafka';
create index on ingest_sources (feed) where kind = 'kafka';
drop index ingest_sources_newest_record_at_idx;
