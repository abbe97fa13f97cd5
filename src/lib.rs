//! simusage: how many bytes every SIM card and every organization used in which hour.
//!
//! Modules in reading order: [`domain`] has the words, [`config`] the settings, [`db`] all that is said to
//! TimescaleDB, [`ingest`] the way in, [`http`] the way out; [`cli`] is the command line, and [`commands`] what
//! it leads to. [`generate`] makes up usage for trying all that, and [`token`] makes up what says who asks.

pub mod cli;
pub mod commands;
pub mod config;
pub mod db;
pub mod domain;
mod failpoint;
pub mod generate;
pub mod http;
pub mod ingest;
pub mod logging;
pub mod manual;
mod pem;
mod signals;
pub mod token;
