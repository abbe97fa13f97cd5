//! Points at which tests can abort the process, to check how the next run recovers.
//!
//! `SIMUSAGE_FAILPOINT=after-copy:3` aborts when `after-copy` is passed for the third time. An
//! abort neither unwinds nor runs destructors, so it is equivalent to `kill -9`. Release builds
//! have no failpoints.

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// The failpoint to abort at, and how many more passes until then.
    static PLAN: OnceLock<Option<(String, AtomicU64)>> = OnceLock::new();

    fn read_plan() -> Option<(String, AtomicU64)> {
        let text = std::env::var("SIMUSAGE_FAILPOINT").ok()?;
        let (name, passes) = text.split_once(':').unwrap_or((&text, "1"));
        Some((name.to_owned(), AtomicU64::new(passes.parse().unwrap_or(1))))
    }

    pub fn pass(name: &str) {
        let Some((planned, passes_left)) = PLAN.get_or_init(read_plan) else {
            return;
        };
        if planned == name && passes_left.fetch_sub(1, Ordering::Relaxed) == 1 {
            std::process::abort();
        }
    }
}

/// Passes the failpoint `name`, or aborts there.
pub(crate) fn pass(name: &str) {
    #[cfg(debug_assertions)]
    armed::pass(name);
    #[cfg(not(debug_assertions))]
    let _ = name;
}
