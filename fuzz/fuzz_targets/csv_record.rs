//! Parses lines of CSV below a header.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| simusage::ingest::fuzzing::csv_record(data));
