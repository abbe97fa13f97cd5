//! What the process costs, as Linux tells it in `/proc` (its manual, proc(5)); elsewhere nothing is known.

/// How long a tick is in `/proc`, whatever the kernel's own clock: `USER_HZ` is 100 wherever Rust runs on Linux.
const SECONDS_PER_TICK: f64 = 0.01;

/// Memory that the process has in RAM.
pub(super) fn resident_bytes() -> Option<usize> {
    resident_bytes_in(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// Time that processors worked for the process.
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
    // The second field is the program's name in parentheses, which may hold spaces. The 14th and 15th are the ticks
    // of the program and of the kernel for it.
    let (_, behind_name) = stat.rsplit_once(") ")?;
    let mut fields = behind_name.split(' ').skip(11);
    let mut ticks = || fields.next()?.parse::<u32>().ok();
    Some((f64::from(ticks()?) + f64::from(ticks()?)) * SECONDS_PER_TICK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_found_whatever_the_programs_name_is() {
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
