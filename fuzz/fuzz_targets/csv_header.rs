//! Parses a CSV header.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| simusage::ingest::fuzzing::csv_header(data));
