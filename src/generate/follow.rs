//! Generates usage records dated now, continuously and at a fixed rate, as a network would emit
//! them.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use chrono::{DateTime, SecondsFormat, Timelike as _, Utc};

use super::device::{Device, HOURLY_LOAD, devices, write_header, write_record};
use crate::ingest::Format;
use crate::signals::Signals;

/// The interval between writes: short enough for a steady flow, long enough to cost nothing.
const WRITE_INTERVAL: Duration = Duration::from_millis(200);

/// What [`follow_usage`] writes: records dated now.
#[derive(Debug, Clone)]
pub struct Follow {
    /// The inventory that lists the SIM cards.
    pub inventory: PathBuf,
    /// Records per second.
    pub rate: u32,
    /// The seed of the random number generator.
    pub seed: u64,
    /// The output format.
    pub format: Format,
}

/// Writes usage records until SIGTERM or SIGINT arrives.
///
/// # Errors
/// Returns an error if the inventory cannot be read or is empty, or the output cannot be written.
pub async fn follow_usage(follow: &Follow, output: impl Write) -> anyhow::Result<()> {
    let mut signals = Signals::listen().context("listening for signals")?;
    let mut random = fastrand::Rng::with_seed(follow.seed);
    let devices = devices(&follow.inventory, &mut random)?;
    let mut output = io::BufWriter::new(output);
    if follow.format == Format::Csv {
        write_header(&mut output).context("writing usage")?;
    }
    let (began, mut written) = (Instant::now(), 0);
    let mut ticks = tokio::time::interval(WRITE_INTERVAL);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = signals.next() => return output.flush().context("writing usage"),
        }
        let due = due(began.elapsed(), follow.rate);
        write_now(
            &mut output,
            follow.format,
            due - written,
            &devices,
            &mut random,
            Utc::now(),
        )
        .and_then(|()| output.flush())
        .context("writing usage")?;
        written = due;
    }
}

/// The number of records that should be written after `elapsed`.
fn due(elapsed: Duration, rate: u32) -> u64 {
    u64::try_from(elapsed.as_millis())
        .unwrap_or(u64::MAX)
        .saturating_mul(rate.into())
        / 1_000
}

fn write_now(
    output: &mut impl Write,
    format: Format,
    count: u64,
    devices: &[Device],
    random: &mut fastrand::Rng,
    now: DateTime<Utc>,
) -> io::Result<()> {
    let date = now.to_rfc3339_opts(SecondsFormat::Millis, true);
    for _ in 0..count {
        write_record(
            output,
            format,
            &devices[random.usize(..devices.len())],
            random,
            HOURLY_LOAD[now.hour() as usize],
            &date,
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_follows_the_clock() {
        assert_eq!(due(Duration::ZERO, 10), 0);
        assert_eq!(due(Duration::from_millis(250), 10), 2);
        assert_eq!(due(Duration::from_hours(24), 100_000), 8_640_000_000);
    }

    #[test]
    fn records_are_dated_now() {
        let mut random = fastrand::Rng::with_seed(1);
        let inventory = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/inventory.json");
        let devices = devices(inventory.as_ref(), &mut random).unwrap();
        let now = "2026-02-03T04:05:06.789Z".parse().unwrap();
        let mut output = vec![];
        write_now(&mut output, Format::Csv, 3, &devices, &mut random, now).unwrap();
        let text = String::from_utf8(output).unwrap();
        assert_eq!(
            text.lines()
                .filter(|line| line.ends_with(",2026-02-03T04:05:06.789Z"))
                .count(),
            3,
            "{text}"
        );
    }
}
