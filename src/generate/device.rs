//! The devices that generated records come from, and how much they use.

use std::io::{self, Write};
use std::path::Path;

use anyhow::ensure;

use crate::ingest::{Format, read_inventory};

/// The relative load of each hour of the day: low at night, highest in the evening.
pub(super) const HOURLY_LOAD: [u64; 24] = [
    3, 2, 2, 2, 2, 3, 5, 8, 10, 11, 11, 12, 12, 11, 11, 11, 12, 13, 15, 16, 15, 12, 8, 5,
];

/// The typical bytes per record of a meter, a tracker, a camera and a router.
const TYPICAL_BYTES: [u64; 4] = [200, 2_000, 60_000, 800_000];

/// A SIM card and the usual size of its records.
pub(super) struct Device {
    sim_card: String,
    usual_bytes: u64,
}

/// Creates a device for each SIM card of an inventory.
pub(super) fn devices(inventory: &Path, random: &mut fastrand::Rng) -> anyhow::Result<Vec<Device>> {
    let mut sim_cards: Vec<String> = read_inventory(inventory, true)?
        .iter()
        .map(|assignment| assignment.sim_card.to_owned())
        .collect();
    sim_cards.dedup();
    ensure!(
        !sim_cards.is_empty(),
        "the inventory {} has no SIM cards; add some, or generate one with \
         `simusage generate inventory`",
        inventory.display()
    );
    let mut device = |sim_card| Device {
        sim_card,
        usual_bytes: TYPICAL_BYTES[random.usize(..TYPICAL_BYTES.len())] * random.u64(5..20) / 10,
    };
    Ok(sim_cards.into_iter().map(&mut device).collect())
}

pub(super) fn write_header(output: &mut impl Write) -> io::Result<()> {
    writeln!(output, "sim-card-id,bytes-used,date")
}

/// Writes one record of a device. `load` is that of the hour, from [`HOURLY_LOAD`].
pub(super) fn write_record(
    output: &mut impl Write,
    format: Format,
    device: &Device,
    random: &mut fastrand::Rng,
    load: u64,
    date: &str,
) -> io::Result<()> {
    let bytes = device.usual_bytes * random.u64(200..1_800) / 1_000 * (load + 10) / 20;
    let sim_card = &device.sim_card;
    if format == Format::Csv {
        return writeln!(output, "{sim_card},{bytes},{date}");
    }
    writeln!(
        output,
        r#"{{"sim-card-id": "{sim_card}", "bytes-used": "{bytes}", "date": "{date}"}}"#
    )
}
