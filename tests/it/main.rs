//! Tests of the whole, in one binary: the router and the built program against a real TimescaleDB.

mod embedded_server {
    pub struct EmbeddedServer;
    impl EmbeddedServer {
        pub fn start() -> Self {
            unimplemented!()
        }
        pub fn url(&self) -> String {
            unimplemented!()
        }
    }
}
mod api;
mod ingest;
mod migrate;
mod queries;
mod support;
