//! Tests of the whole, in one binary: the router and the built program against a real TimescaleDB.

mod api;
mod database_tls;
mod dry_run;
mod embedded;
mod embedded_server;
mod exactly_once;
mod exactness;
mod first_mistakes;
mod generate;
mod ingest;
mod kafka;
mod limits;
mod migrate;
mod multi_host;
mod openapi;
mod operations;
mod outages;
mod page;
mod queries;
mod replay;
mod schemathesis;
mod serve;
mod support;
mod tls;
mod tokens;
mod whole_api;
