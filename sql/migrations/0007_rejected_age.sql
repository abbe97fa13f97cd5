-- For deleting rejected records by age.

create index on rejected_records (rejected_at);
