//! Memory and CPU time of the process, from `/proc` (see proc(5)). Available only on Linux.

/// `/proc` counts in `USER_HZ`, which is 100 on every Linux target of Rust.
const SECONDS_PER_TICK: f64 = 0.01;

/// The resident set size.
pub(super) fn resident_bytes() -> Option<usize> {
    resident_bytes_in(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// User and system CPU time.
pub(super) fn cpu_seconds() -> Option<f64> {
    cpu_seconds_in(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

fn resident_bytes_in(status: &str) -> Option<usize> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: usize = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

fn cpu_seconds_in(stat: &str) -> Option<f64> {
    // Field 2 is the program's name in parentheses, which may contain spaces. Fields 14 and 15 are
    // user and system time.
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut fields = after_name.split(' ').skip(11);
    let mut ticks = || fields.next()?.parse::<u32>().ok();
    Some((f64::from(ticks()?) + f64::from(ticks()?)) * SECONDS_PER_TICK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_for_any_program_name() {
        let stat =
            "17 (a) b (c) R 1 2 3 4 -1 4194304 101 0 0 0 150 50 0 0 20 0 1 0 1361031 2998272 373";
        assert_eq!(cpu_seconds_in(stat), Some(2.0));
        assert_eq!(
            resident_bytes_in("Name:\tx\nVmRSS:\t    1972 kB\n"),
            Some(1972 * 1024)
        );
        assert_eq!(
            (cpu_seconds_in("nonsense"), resident_bytes_in("nonsense")),
            (None, None)
        );
    }
}
