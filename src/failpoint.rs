//! Places where a test can make the program die, to see what the next run makes of it.
//!
//! `SIMUSAGE_FAILPOINT=after-copy:3` aborts the process when it passes `after-copy` for the third time. There is
//! nothing to unwind then and no destructor runs, so it is as good as `kill -9`. Release builds have none of it.

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Where to die, and how often to pass there before.
    static PLAN: OnceLock<Option<(String, AtomicU64)>> = OnceLock::new();

    fn read_plan() -> Option<(String, AtomicU64)> {
        let text = std::env::var("SIMUSAGE_FAILPOINT").ok()?;
        let (name, times) = text.split_once(':').unwrap_or((&text, "1"));
        Some((name.to_owned(), AtomicU64::new(times.parse().unwrap_or(1))))
    }

    /// Aborts if this is the place and the time.
    pub fn pass(name: &str) {
        let Some((place, left)) = PLAN.get_or_init(read_plan) else {
            return;
        };
        if place == name && left.fetch_sub(1, Ordering::Relaxed) == 1 {
            std::process::abort();
        }
    }
}

/// Passes the place of that name.
pub(crate) fn pass(name: &str) {
    #[cfg(debug_assertions)]
    armed::pass(name);
    #[cfg(not(debug_assertions))]
    let _ = name;
}
