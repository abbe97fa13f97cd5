//! Constants of the binary format of COPY.

/// Signature, flags and length of the header extension: see PostgreSQL's manual on COPY.
pub(super) const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// The field count -1, which ends the data.
pub(super) const TRAILER: &[u8] = &(-1_i16).to_be_bytes();

/// The epoch of PostgreSQL's timestamps, 2000-01-01T00:00:00Z, in microseconds since 1970.
pub(super) const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;
