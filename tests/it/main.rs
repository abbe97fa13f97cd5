//! Integration tests, in one binary. They need a TimescaleDB; see [`support`].

mod api;
mod queries;
mod support;
