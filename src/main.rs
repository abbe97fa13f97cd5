//! The `simusage` program.

fn main() {}
