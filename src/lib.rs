//! simusage: how many bytes every SIM card and every organization used in which hour.
//!
//! Modules in reading order: [`domain`] has the words, [`config`] the settings, [`db`] all that is said to
//! TimescaleDB, [`http`] the API.

pub mod config;
pub mod db;
pub mod domain;
pub mod http;
