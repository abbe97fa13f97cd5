//! Tests of the whole, in one binary: the router and the built program against a real TimescaleDB.

mod api;
mod embedded;
mod embedded_server;
mod exactness;
mod ingest;
mod migrate;
mod queries;
mod serve;
mod support;
