-- The feed of a source: the first pattern that its name matches, or else its name without what differs
-- from file to file.
--
-- Parameters:
--   kind      text  see ingest_sources
--   identity  text
--   name      text
-- Columns:
--   feed_of  text
--
-- The name that is matched is a file's name without folders, a stream's own name, or a topic. A pattern with
-- folders is matched with the end of the file's path: site1/* matches /data/site1/usage.csv. Numbers in the
-- names of files, and hashes, become *: usage-2026-03-01.ndjson.gz is of the feed usage-*.ndjson.

create or replace function feed_of(kind text, identity text, name text) returns text
language plpgsql
stable
set plan_cache_mode = force_generic_plan
as $$
declare
    label text := case kind
        when 'kafka' then split_part(identity, '/', 2)
        when 'stream' then identity
        when 'file' then regexp_replace(name, '^.*/', '')
        else 'stdin'
    end;
    found_feed text := (
        select feed_patterns.feed
        from feed_patterns
        where feed_patterns.number > 0
            and case
                when kind = 'file' and feed_patterns.pattern like '%/%'
                    then name like feed_patterns.pattern or '/' || name like '%/' || feed_patterns.pattern
                else label like feed_patterns.pattern
            end
        order by feed_patterns.number
        limit 1
    );
begin
    if found_feed is null and kind = 'file' then
        found_feed := regexp_replace(label, '\.(gz|zst)$', '');
        found_feed := regexp_replace(found_feed, '[0-9a-fA-F]{8}-?[0-9a-fA-F-]{8,}', '*', 'g');
        found_feed := regexp_replace(found_feed, '[0-9]+([-_.:T]*[0-9]+)*', '*', 'g');
    end if;
    return coalesce(found_feed, label);
end
$$
