//! The clock of this host, which tests can set.
//!
//! `SIMUSAGE_CLOCK_FILE` names a file with the seconds by which the clock is wrong. It is read again
//! each time, so that the clock can jump while the program runs. Release builds ignore it.

use chrono::{DateTime, Utc};

/// The instant that this host takes for the current one.
pub(crate) fn now() -> DateTime<Utc> {
    #[cfg(debug_assertions)]
    {
        Utc::now() + error()
    }
    #[cfg(not(debug_assertions))]
    {
        Utc::now()
    }
}

#[cfg(debug_assertions)]
fn error() -> chrono::TimeDelta {
    use std::sync::OnceLock;

    static FILE: OnceLock<Option<std::path::PathBuf>> = OnceLock::new();
    let Some(file) = FILE.get_or_init(|| std::env::var_os("SIMUSAGE_CLOCK_FILE").map(Into::into))
    else {
        return chrono::TimeDelta::zero();
    };
    let text = std::fs::read_to_string(file).expect("the file of SIMUSAGE_CLOCK_FILE is readable");
    let seconds = text
        .trim()
        .parse()
        .expect("SIMUSAGE_CLOCK_FILE has seconds");
    chrono::TimeDelta::seconds(seconds)
}
