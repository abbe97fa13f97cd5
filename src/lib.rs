//! simusage stores how many bytes each SIM card and each organization used, and serves totals per
//! hour and day.
//!
//! Modules in reading order: [`domain`] has the types, [`config`] the settings and [`db`] the
//! database access. [`ingest`] stores records and [`http`] serves the API. [`cli`] and [`commands`]
//! are the command line, [`generate`] generates sample data, and [`token`] creates API tokens.

pub mod cli;
mod clock;
pub mod commands;
pub mod config;
pub mod db;
pub mod domain;
mod failpoint;
pub mod generate;
pub mod http;
pub mod ingest;
pub mod logging;
mod pem;
pub mod printable;
mod signals;
pub mod token;
