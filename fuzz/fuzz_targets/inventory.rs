//! Parses an inventory in JSON or CSV.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| simusage::ingest::fuzzing::inventory(data));
