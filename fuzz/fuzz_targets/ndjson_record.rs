//! Parses a line of NDJSON.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| simusage::ingest::fuzzing::ndjson_record(data));
