//! `--format`

use std::sync::LazyLock;

use clap::ValueEnum;
use clap::builder::PossibleValue;

use crate::ingest::Format;

/// The value of `--format`: a format, or `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FormatArg(pub Option<Format>);

impl ValueEnum for FormatArg {
    fn value_variants<'a>() -> &'a [Self] {
        static VARIANTS: LazyLock<Vec<FormatArg>> = LazyLock::new(|| {
            let formats = Format::ALL.into_iter().map(Some);
            std::iter::once(None)
                .chain(formats)
                .map(FormatArg)
                .collect()
        });
        &VARIANTS
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.map_or("auto", Format::name)))
    }
}
