-- Stores records that could not be stored as usage records.

copy rejected_records (source, source_id, position, line, format, header, reason, field, detail, raw, version)
from stdin (format binary)
