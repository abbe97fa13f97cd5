//! Generates sample usage records for demonstrations, tests and benchmarks. The same seed gives the
//! same records.

mod device;
mod follow;

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Context as _;
use chrono::{NaiveDate, TimeDelta};

use crate::ingest::Format;
use device::{Device, HOURLY_LOAD, devices, write_header, write_record};

pub use follow::{Follow, follow_usage};

/// What [`generate_usage`] writes: records of past days.
#[derive(Debug, Clone)]
pub struct Usage {
    /// The inventory that lists the SIM cards.
    pub inventory: PathBuf,
    /// The first day.
    pub start: NaiveDate,
    /// The number of days.
    pub days: u32,
    /// The total number of records.
    pub records: u64,
    /// The seed of the random number generator.
    pub seed: u64,
    /// The output format.
    pub format: Format,
}

/// Writes usage records in chronological order.
///
/// # Errors
/// Returns an error if the inventory cannot be read or is empty, or the output cannot be written.
pub fn generate_usage(usage: &Usage, output: impl Write) -> anyhow::Result<()> {
    let mut random = fastrand::Rng::with_seed(usage.seed);
    let devices = devices(&usage.inventory, &mut random)?;
    let mut output = io::BufWriter::with_capacity(1 << 20, output);
    write_records(usage, &devices, &mut random, &mut output)
        .and_then(|()| output.flush())
        .context("writing usage")
}

fn write_records(
    usage: &Usage,
    devices: &[Device],
    random: &mut fastrand::Rng,
    output: &mut impl Write,
) -> io::Result<()> {
    if usage.format == Format::Csv {
        write_header(output)?;
    }
    let total_load: u64 = HOURLY_LOAD.iter().sum::<u64>() * u64::from(usage.days);
    let (mut load_so_far, mut written) = (0, 0);
    for day in 0..usage.days {
        let date = usage.start + TimeDelta::days(day.into());
        for (hour, load) in HOURLY_LOAD.into_iter().enumerate() {
            // Rounding the running total instead of each hour's share keeps the total exact.
            load_so_far += load;
            let target = mul_div(usage.records, load_so_far, total_load);
            let count = target - written;
            written = target;
            let prefix = format!("{date}T{hour:02}:");
            for index in 0..count {
                let second = mul_div(3_600, index, count) + random.u64(..3_600_u64.div_ceil(count));
                let second = second.min(3_599);
                let device = &devices[random.usize(..devices.len())];
                let date = format!("{prefix}{:02}:{:02}Z", second / 60, second % 60);
                write_record(output, usage.format, device, random, load, &date)?;
            }
        }
    }
    Ok(())
}

/// `a * b / c` without intermediate overflow.
fn mul_div(a: u64, b: u64, c: u64) -> u64 {
    u64::try_from(u128::from(a) * u128::from(b) / u128::from(c)).unwrap_or(u64::MAX)
}

/// Writes an inventory as CSV: SIM cards with 19-digit ICCIDs, distributed evenly over
/// organizations.
///
/// # Errors
/// Returns an error if the output cannot be written.
pub fn generate_inventory(
    sim_cards: u64,
    organizations: u64,
    output: impl Write,
) -> anyhow::Result<()> {
    let mut output = io::BufWriter::new(output);
    writeln!(output, "sim-card-id,org-id")?;
    for number in 0..sim_cards {
        writeln!(
            output,
            "8944{number:015},org{:05}",
            number % organizations.max(1)
        )?;
    }
    output.flush().context("writing the inventory")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(records: u64, seed: u64, format: Format) -> String {
        let usage = Usage {
            inventory: concat!(env!("CARGO_MANIFEST_DIR"), "/examples/inventory.json").into(),
            start: NaiveDate::from_ymd_opt(2020, 2, 1).unwrap(),
            days: 28,
            records,
            seed,
            format,
        };
        let mut output = vec![];
        generate_usage(&usage, &mut output).unwrap();
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn records_depend_on_the_seed_only() {
        assert_eq!(text(1_000, 1, Format::Csv), text(1_000, 1, Format::Csv));
        assert_ne!(text(1_000, 1, Format::Csv), text(1_000, 2, Format::Csv));
    }

    #[test]
    fn the_number_of_records_is_exact_and_dates_ascend() {
        for records in [0, 1, 671, 40_320] {
            let text = text(records, 1, Format::Ndjson);
            assert_eq!(text.lines().count() as u64, records);
            let dates: Vec<&str> = text
                .lines()
                .map(|line| line.split('"').nth(11).unwrap())
                .collect();
            assert!(dates.is_sorted());
            assert!(
                dates
                    .iter()
                    .all(|date| ("2020-02-01".."2020-02-29").contains(date))
            );
        }
    }

    #[test]
    fn every_sim_card_is_used_and_evenings_have_more_records_than_nights() {
        let text = text(40_320, 1, Format::Csv);
        let sim_cards: std::collections::BTreeSet<&str> = text
            .lines()
            .skip(1)
            .map(|line| line.split(',').next().unwrap())
            .collect();
        assert_eq!(sim_cards.len(), 15);
        let at = |hour: &str| {
            text.lines()
                .filter(|line| line.contains(&format!("T{hour}:")))
                .count()
        };
        assert!(at("19") > 4 * at("03"));
    }
}
