//! Splits a stream into lines.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| simusage::ingest::fuzzing::lines(data));
