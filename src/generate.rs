//! Made-up usage for demonstrations, tests and benchmarks: the same seed makes the same records.

mod follow;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use chrono::{NaiveDate, TimeDelta};

use crate::ingest::{Format, read_inventory};

pub use follow::{Follow, follow_usage};

/// How busy each hour of the day is: quiet at night, a rise in the morning, the peak in the evening.
const RHYTHM: [u64; 24] = [
    3, 2, 2, 2, 2, 3, 5, 8, 10, 11, 11, 12, 12, 11, 11, 11, 12, 13, 15, 16, 15, 12, 8, 5,
];

/// Bytes that a record of the smallest kind of device has at least: a meter, a tracker, a camera, a router.
const KINDS: [u64; 4] = [200, 2_000, 60_000, 800_000];

/// Which usage to make.
#[derive(Debug, Clone)]
pub struct Usage {
    /// The inventory whose SIM cards are used.
    pub inventory: PathBuf,
    /// The first day.
    pub start: NaiveDate,
    /// How many days.
    pub days: u32,
    /// How many records in all.
    pub records: u64,
    /// What makes one run differ from another.
    pub seed: u64,
    /// How to write the records.
    pub format: Format,
}

/// A SIM card's text and the usual size of its records.
struct Device {
    sim_card: String,
    usual_bytes: u64,
}

/// Writes usage records in the order of time.
///
/// # Errors
/// The inventory cannot be read or is empty, or the output cannot be written.
pub fn generate_usage(usage: &Usage, output: impl Write) -> anyhow::Result<()> {
    let mut random = fastrand::Rng::with_seed(usage.seed);
    let devices = devices(&usage.inventory, &mut random)?;
    let mut output = io::BufWriter::with_capacity(1 << 20, output);
    write_records(usage, &devices, &mut random, &mut output)
        .and_then(|()| output.flush())
        .context("writing usage")
}

/// A device for each SIM card of an inventory.
fn devices(inventory: &Path, random: &mut fastrand::Rng) -> anyhow::Result<Vec<Device>> {
    let mut sim_cards: Vec<String> = read_inventory(inventory)?
        .into_iter()
        .map(|assignment| assignment.sim_card.into())
        .collect();
    sim_cards.sort_unstable();
    sim_cards.dedup();
    ensure!(
        !sim_cards.is_empty(),
        "{} has no SIM card",
        inventory.display()
    );
    let mut device = |sim_card| Device {
        sim_card,
        usual_bytes: KINDS[random.usize(..KINDS.len())] * random.u64(5..20) / 10,
    };
    Ok(sim_cards.into_iter().map(&mut device).collect())
}

fn write_header(output: &mut impl Write) -> io::Result<()> {
    writeln!(output, "sim-card-id,bytes-used,date")
}

/// Writes what a device used in an hour that is so `busy`.
fn write_record(
    output: &mut impl Write,
    format: Format,
    device: &Device,
    random: &mut fastrand::Rng,
    busy: u64,
    date: &str,
) -> io::Result<()> {
    let bytes = device.usual_bytes * random.u64(200..1_800) / 1_000 * (busy + 10) / 20;
    let sim_card = &device.sim_card;
    match format {
        Format::Ndjson => {
            writeln!(
                output,
                r#"{{"sim-card-id": "{sim_card}", "bytes-used": "{bytes}", "date": "{date}"}}"#
            )
        }
        Format::Csv => writeln!(output, "{sim_card},{bytes},{date}"),
    }
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
    let whole: u64 = RHYTHM.iter().sum::<u64>() * u64::from(usage.days);
    let (mut weight, mut written) = (0, 0);
    for day in 0..usage.days {
        let date = usage.start + TimeDelta::days(day.into());
        for (hour, busy) in RHYTHM.into_iter().enumerate() {
            // Each hour gets its share of what is still to write, so that the total is exact.
            weight += busy;
            let target = mul_div(usage.records, weight, whole);
            let count = target - written;
            written = target;
            let prefix = format!("{date}T{hour:02}:");
            for index in 0..count {
                let second = mul_div(3_600, index, count) + random.u64(..3_600_u64.div_ceil(count));
                let second = second.min(3_599);
                let device = &devices[random.usize(..devices.len())];
                let date = format!("{prefix}{:02}:{:02}Z", second / 60, second % 60);
                write_record(output, usage.format, device, random, busy, &date)?;
            }
        }
    }
    Ok(())
}

/// `a * b / c`, without overflow on the way.
fn mul_div(a: u64, b: u64, c: u64) -> u64 {
    u64::try_from(u128::from(a) * u128::from(b) / u128::from(c)).unwrap_or(u64::MAX)
}

/// Writes an inventory as CSV: SIM cards with ICCIDs of 19 digits, spread over organizations.
///
/// # Errors
/// The output cannot be written.
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
    fn the_same_seed_makes_the_same_records_and_another_others() {
        assert_eq!(text(1_000, 1, Format::Csv), text(1_000, 1, Format::Csv));
        assert_ne!(text(1_000, 1, Format::Csv), text(1_000, 2, Format::Csv));
    }

    #[test]
    fn the_number_of_records_is_exact_and_they_are_in_order() {
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
    fn every_sim_card_is_used_and_evenings_are_busier_than_nights() {
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
