-- What identifies the topic and the last message of a Kafka partition that was read.
--
-- In ingest_sources, a row of kind 'kafka' has these columns:
--   position     the offset of the next message, which may be after transaction markers
--   line         the offset after the last message that was read
--   prefix_hash  BLAKE3 of that message, with its key and timestamp

-- The identifier of the topic, which differs once the topic has been deleted and created again; null
-- where it is unknown: brokers before Kafka 2.8 have none.
alter table ingest_sources add column topic_id text;
