-- Sets how feeds are told apart. The sources must follow: see update_feeds.sql.
--
-- Parameters, parallel arrays; the first is for all feeds that match no pattern:
--   $1 text[]     patterns with * for any text; null for the first
--   $2 integer[]  hours of silence; null: any

with deleted as (
    delete from feed_patterns where number >= cardinality($1::text[])
)
insert into feed_patterns (number, pattern, feed, silent_after)
select
    given.number - 1,
    replace(replace(replace(replace(given.feed, '\', '\\'), '%', '\%'), '_', '\_'), '*', '%'),
    given.feed,
    make_interval(hours => given.hours)
from unnest($1, $2::integer[]) with ordinality as given (feed, hours, number)
on conflict (number) do update
set pattern = excluded.pattern, feed = excluded.feed, silent_after = excluded.silent_after
