-- Stores what could not be stored as a usage record.

copy rejected_records (source, source_id, position, line, format, header, reason, field, detail, raw, version)
from stdin (format binary)
