//! Integration tests, in one binary.

fn main() {}
