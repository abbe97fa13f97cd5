-- Stores what could not be stored as a usage record.

copy rejected_records (source, position, line, reason, field, detail, raw, version) from stdin (format binary)
