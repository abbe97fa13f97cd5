//! Reads an inventory from a JSON or CSV file. One invalid entry refuses the whole file, because
//! records of a SIM card missing from the inventory would be rejected.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::marker::PhantomData;
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use chrono::{DateTime, Datelike as _, NaiveDate, Utc};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::compression::{Members, is_compressed, peek};
use super::csv_line::{Columns, HeaderError, Splitter};
use super::lines::trim_carriage_return;
use crate::domain::{
    AssignmentList, AssignmentListBuilder, ConflictKind, OrganizationId, SimCardId,
};

const SIM_CARD: &str = "sim-card-id";
const ORGANIZATION: &str = "org-id";
const VALID_FROM: &str = "valid-from";
const VALID_UNTIL: &str = "valid-until";

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Bytes read at once. The format is detected in the first of them.
const BLOCK_BYTES: usize = 64 * 1024;

/// An entry before validation.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(rename = "sim-card-id", alias = "sim_card_id")]
    sim_card: String,
    /// `null` or empty: the assignment ends.
    #[serde(rename = "org-id", alias = "org_id", deserialize_with = "nullable")]
    organization: Option<String>,
    #[serde(rename = "valid-from", alias = "valid_from", default)]
    valid_from: Option<String>,
    #[serde(rename = "valid-until", alias = "valid_until", default)]
    valid_until: Option<String>,
}

/// A field that may be null, but must be there.
fn nullable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Option::deserialize(deserializer)
}

/// A value that only a JSON object represents. serde also accepts an array with the fields in order.
struct JsonObject<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for JsonObject<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = T;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer
            .deserialize_map(ObjectVisitor(PhantomData))
            .map(Self)
    }
}

/// Reads an inventory file, plain or compressed: a JSON array of `{"sim-card-id", "org-id", "valid-from"?,
/// "valid-until"?}`, or CSV with these columns. An entry without `valid-from` applies from the
/// beginning of time, and one without organization ends the assignment. If the file `is_complete`, its
/// last line of CSV needs no line end.
///
/// # Errors
/// Returns an error if the file cannot be read or an entry is invalid; it names the entry and the
/// value.
pub fn read_inventory(path: &Path, is_complete: bool) -> anyhow::Result<AssignmentList> {
    let name = path.display();
    let file = File::open(path).with_context(|| {
        format!(
            "reading the inventory {name} (expected JSON such as \
             [{{\"sim-card-id\": \"89440001\", \"org-id\": \"a01b7\"}}], or CSV with these columns)"
        )
    })?;
    let parsed = peek(file)
        .context("reading it")
        .and_then(|(beginning, raw)| {
            if is_compressed(&beginning) {
                let members = Members::new(raw).warning_as(&name.to_string());
                parse_inventory(members, is_complete)
            } else {
                parse_inventory(raw, is_complete)
            }
        });
    parsed.with_context(|| format!("inventory {name}"))
}

/// Parses JSON if the text starts with `[` or `{`, and CSV otherwise.
pub(super) fn parse_inventory(
    input: impl std::io::Read,
    is_complete: bool,
) -> anyhow::Result<AssignmentList> {
    let mut input = BufReader::with_capacity(BLOCK_BYTES, input);
    let start = input.fill_buf().context("reading it")?;
    if start.starts_with(BYTE_ORDER_MARK) {
        input.consume(BYTE_ORDER_MARK.len());
    }
    let start = input.fill_buf().context("reading it")?;
    let is_json =
        start.trim_ascii_start().starts_with(b"[") || start.trim_ascii_start().starts_with(b"{");
    if is_json {
        read_json(input)
    } else {
        read_csv(input, is_complete)
    }
}

/// Validated entries, whose places are numbers of entries in JSON and of lines in CSV.
struct Entries {
    /// "entry" or "line".
    unit: &'static str,
    builder: AssignmentListBuilder,
}

impl Entries {
    fn new(unit: &'static str) -> Self {
        Self {
            unit,
            builder: AssignmentListBuilder::default(),
        }
    }

    fn add(&mut self, place: usize, entry: &Entry) -> anyhow::Result<()> {
        let unit = self.unit;
        let instant = |name: &str, text: Option<&str>| {
            let text = text.filter(|text| !text.is_empty());
            text.map(|text| {
                parse_instant(text).ok_or_else(|| {
                    anyhow!(
                        "{unit} {place}: {name}: '{text}' is not a date or a date-time with an offset \
                         (e.g. 2022-02-18, 2022-02-18T00:00:00Z)"
                    )
                })
            })
            .transpose()
        };
        let valid_from = instant(VALID_FROM, entry.valid_from.as_deref())?;
        let valid_until = instant(VALID_UNTIL, entry.valid_until.as_deref())?;
        let sim_card = SimCardId::parse(&entry.sim_card)
            .map_err(|error| anyhow!("{unit} {place}: {SIM_CARD}: {error}"))?;
        let organization = entry.organization.as_deref();
        let organization = organization.filter(|organization| !organization.is_empty());
        let organization = organization
            .map(OrganizationId::parse)
            .transpose()
            .map_err(|error| anyhow!("{unit} {place}: {ORGANIZATION}: {error}"))?;
        if organization.is_none() && (valid_from.is_none() || valid_until.is_some()) {
            bail!(
                "{unit} {place}: {ORGANIZATION} is empty. To end the assignment of SIM card {sim_card}, set \
                 {VALID_FROM} to the end and omit {VALID_UNTIL}"
            );
        }
        if let (Some(from), Some(until)) = (valid_from, valid_until)
            && until <= from
        {
            bail!("{unit} {place}: {VALID_UNTIL} must be after {VALID_FROM}");
        }
        u32::try_from(place)
            .and_then(|place| {
                let builder = &mut self.builder;
                builder.add(&sim_card, organization, valid_from, valid_until, place)
            })
            .with_context(|| format!("{unit} {place}: the inventory file is too large; split it"))
    }

    fn finish(self) -> anyhow::Result<AssignmentList> {
        self.builder.finish().map_err(|conflict| {
            let (unit, place, sim_card) = (self.unit, conflict.place, conflict.sim_card);
            let owner = |organization: Option<OrganizationId>| {
                organization.map_or_else(
                    || "assigned to no organization".to_owned(),
                    |organization| format!("assigned to {organization}"),
                )
            };
            match conflict.kind {
                ConflictKind::Owners {
                    organization,
                    before,
                } => anyhow!(
                    "{unit} {place}: SIM card {sim_card} is {}, but an earlier entry has it {} from the same \
                     instant; remove one of them",
                    owner(organization),
                    owner(before)
                ),
                ConflictKind::Overlap => anyhow!(
                    "{unit} {place}: another entry of SIM card {sim_card} begins before {VALID_UNTIL}; correct \
                     one of them"
                ),
            }
        })
    }
}

fn read_json(input: impl BufRead) -> anyhow::Result<AssignmentList> {
    let mut entries = Entries::new("entry");
    let mut invalid = None;
    let seed = EntriesSeed {
        entries: &mut entries,
        invalid: &mut invalid,
    };
    let mut json = serde_json::Deserializer::from_reader(input);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut json, &mut track);
    let read = seed.deserialize(tracked);
    if let Some(error) = invalid {
        return Err(error);
    }
    read.map_err(|error| anyhow!("{}: {error}", track.path()))?;
    json.end()?;
    entries.finish()
}

/// Adds the entries of a JSON array while it is read.
struct EntriesSeed<'a> {
    entries: &'a mut Entries,
    /// Receives the error of an entry that is JSON but not valid.
    invalid: &'a mut Option<anyhow::Error>,
}

impl<'de> DeserializeSeed<'de> for EntriesSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for EntriesSeed<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        let mut number = 0;
        while let Some(JsonObject(entry)) = sequence.next_element::<JsonObject<Entry>>()? {
            number += 1;
            if let Err(error) = self.entries.add(number, &entry) {
                let stop = serde::de::Error::custom(&error);
                *self.invalid = Some(error);
                return Err(stop);
            }
        }
        Ok(())
    }
}

fn read_csv(mut input: impl BufRead, is_complete: bool) -> anyhow::Result<AssignmentList> {
    let mut line = vec![];
    let mut next_line = |line: &mut Vec<u8>, number: usize| {
        line.clear();
        let length = input.read_until(b'\n', line);
        let length = length.with_context(|| format!("reading line {number}"))?;
        let ended = line.strip_suffix(b"\n");
        let (has_end, end) = (ended.is_some(), ended.map_or(line.len(), <[u8]>::len));
        line.truncate(end);
        line.truncate(trim_carriage_return(line).len());
        anyhow::Ok((length > 0).then_some(has_end))
    };
    next_line(&mut line, 1)?;
    let in_header = |error: HeaderError| anyhow!("line 1: {error}");
    let columns = Columns::parse(&line).map_err(in_header)?;
    let sim_card = columns.require(SIM_CARD).map_err(in_header)?;
    let organization = columns.require(ORGANIZATION).map_err(in_header)?;
    let valid_from = columns.find(VALID_FROM).map_err(in_header)?;
    let valid_until = columns.find(VALID_UNTIL).map_err(in_header)?;
    let mut splitter = Splitter::default();
    let mut entries = Entries::new("line");
    let mut number = 2;
    while let Some(has_end) = next_line(&mut line, number)? {
        if !line.trim_ascii().is_empty() {
            if !has_end && !is_complete {
                bail!(
                    "line {number}: the last line has no line ending, so it may be incomplete; end the \
                     line, or pass --complete if nothing was cut"
                );
            }
            let fields = splitter
                .split(&line)
                .map_err(|error| anyhow!("line {number}: {error}"))?;
            if fields.len() != columns.len() {
                bail!(
                    "line {number}: the line has {} fields but the header has {} columns; quote fields that \
                     contain commas",
                    fields.len(),
                    columns.len()
                );
            }
            let text = |index: usize| String::from_utf8_lossy(fields.get(index)).into_owned();
            let entry = Entry {
                sim_card: text(sim_card),
                organization: Some(text(organization)),
                valid_from: valid_from.map(text),
                valid_until: valid_until.map(text),
            };
            entries.add(number, &entry)?;
        }
        number += 1;
    }
    entries.finish()
}

/// Parses a date (midnight UTC) or a date-time with an offset, in the years 1 to 9999.
fn parse_instant(text: &str) -> Option<DateTime<Utc>> {
    let midnight = || {
        text.parse::<NaiveDate>()
            .ok()
            .and_then(|date| date.and_hms_opt(0, 0, 0))
            .map(|time| time.and_utc())
    };
    DateTime::parse_from_rfc3339(text)
        .ok()
        .map(|time| time.to_utc())
        .or_else(midnight)
        .filter(|time| (1..=9999).contains(&time.year()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<AssignmentList> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("inventory");
        std::fs::write(&path, text).unwrap();
        read_inventory(&path, false)
    }

    fn problem(text: &str) -> String {
        format!("{:#}", read(text).unwrap_err())
    }

    #[test]
    fn json_and_csv_are_equivalent() {
        let json = r#"[{"sim-card-id": "89440001", "org-id": "a01b7"},
                       {"sim-card-id": "89440001", "org-id": "x00g8", "valid-from": "2022-02-18"}]"#;
        let csv = "valid_from,org-id,sim-card-id\r\n,a01b7,89440001\r\n2022-02-18T01:00:00+01:00,x00g8,\"89440001\"\r\n";
        let assignments = read(json).unwrap();
        assert!(assignments.iter().eq(read(csv).unwrap().iter()));
        let from: Vec<_> = assignments.iter().map(|row| row.valid_from_us).collect();
        assert_eq!(from, [i64::MIN, 1_645_142_400_000_000]);
    }

    #[test]
    fn errors_name_the_entry_and_the_value() {
        let text = problem(
            r#"[{"sim-card-id": "1", "org-id": "a"}, {"sim-card-id": "2", "org-id": "a/b"}]"#,
        );
        assert!(text.contains("entry 2: org-id: 'a/b'"), "{text}");
        let text = problem(r#"[{"sim-card-id": "1"}]"#);
        assert!(text.contains("[0]") && text.contains("org-id"), "{text}");
        let text = problem(r#"[{"sim-card-id": 1, "org-id": "a"}]"#);
        assert!(text.contains("[0].sim-card-id"), "{text}");
        let text = problem(r#"[["1", "a", "2020-01-01"]]"#);
        assert!(
            text.contains("[0]") && text.contains("invalid type: sequence, expected an object"),
            "{text}"
        );
        for date in [
            "-0001-01-01",
            "-1-01-01",
            "0000-01-01",
            "+12026-01-01",
            "12026-01-01",
        ] {
            let text = problem(&format!("sim-card-id,org-id,valid-from\n1,a,{date}\n"));
            assert!(
                text.contains(&format!("line 2: valid-from: '{date}'")),
                "{text}"
            );
        }
        let text = problem("sim-card-id,org-id\n1,a\n,a\n");
        assert!(text.contains("line 3: sim-card-id: ''"), "{text}");
        let text = problem("sim-card-id,org-id\n1,a,x\n");
        assert!(text.contains("line 2: the line has 3 fields"), "{text}");
        let text = problem("sim-card-id,organization\n1,a\n");
        assert!(text.contains("no column org-id"), "{text}");
        let text = problem("sim-card-id,org-id,valid-from\n1,a,soon\n");
        assert!(text.contains("line 2: valid-from: 'soon'"), "{text}");
        assert!(problem("").contains("line 1: the header is empty"));
    }

    #[test]
    fn a_compressed_inventory_is_read() {
        use std::io::Write as _;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("inventory");
        for text in [
            "sim-card-id,org-id\n1,a\n2,b\n",
            r#"[{"sim-card-id": "1", "org-id": "a"}, {"sim-card-id": "2", "org-id": "b"}]"#,
        ] {
            let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::default());
            encoder.write_all(text.as_bytes()).unwrap();
            let gzip = encoder.finish().unwrap();
            let zstd = zstd::stream::encode_all(text.as_bytes(), 1).unwrap();
            for content in [&gzip, &zstd] {
                std::fs::write(&path, content).unwrap();
                let list = read_inventory(&path, false).unwrap();
                assert!(list.iter().eq(read(text).unwrap().iter()));
            }
            // The checksum is wrong, or the end is missing.
            let mut damaged = gzip.clone();
            let checksum = damaged.len() - 6;
            damaged[checksum] ^= 1;
            for content in [&damaged, &gzip[..gzip.len() - 1]] {
                std::fs::write(&path, content).unwrap();
                let error = read_inventory(&path, false).unwrap_err();
                assert!(format!("{error:#}").starts_with("inventory "), "{error:#}");
            }
        }
    }

    #[test]
    fn an_unfinished_last_line_is_refused() {
        for text in [
            "sim-card-id,org-id\n1,acme\n2,ac",
            "sim-card-id,org-id\n1,acme\n2,ac\r",
            "sim-card-id,org-id,note\n1,acme,\n2,acme,so",
        ] {
            let problem = problem(text);
            assert!(
                problem.contains("inventory: line 3: the last line has no line ending"),
                "{problem}"
            );
            assert_eq!(parse_inventory(text.as_bytes(), true).unwrap().len(), 2);
        }
        // Nothing can be missing from these.
        for text in [
            r#"[{"sim-card-id": "1", "org-id": "a"}]"#,
            "sim-card-id,org-id\n1,a\n\r",
        ] {
            assert_eq!(read(text).unwrap().len(), 1, "{text}");
        }
        assert_eq!(read("sim-card-id,org-id").unwrap().len(), 0);
    }

    #[test]
    fn an_assignment_can_end() {
        let ended = |rows: &str| {
            let list = read(&format!(
                "sim-card-id,org-id,valid-from,valid-until\n{rows}"
            ))
            .unwrap();
            let row = |row: crate::domain::ListedAssignment<'_>| {
                (
                    row.organization.is_some(),
                    row.valid_from_us / 86_400_000_000,
                )
            };
            list.iter().map(row).collect::<Vec<_>>()
        };
        let expected = [(true, 10), (false, 20)];
        assert_eq!(ended("1,a,1970-01-11,1970-01-21\n"), expected);
        assert_eq!(ended("1,,1970-01-21,\n1,a,1970-01-11,\n"), expected);
        assert_eq!(
            ended("1,a,1970-01-11,1970-01-21\n1,a,1970-01-11,1970-01-21\n"),
            expected
        );
        let expected = [(true, 10), (true, 20), (false, 30)];
        let rows = "1,b,1970-01-21,1970-01-31\n1,a,1970-01-11,1970-01-21\n";
        assert_eq!(ended(rows), expected);
        let json = r#"[{"sim-card-id": "1", "org-id": null, "valid-from": "1970-01-21"}]"#;
        assert_eq!(read(json).unwrap().get(0).organization, None);

        let header = "sim-card-id,org-id,valid-from,valid-until\n";
        for (rows, error) in [
            (
                "1,,,\n",
                "line 2: org-id is empty. To end the assignment of SIM card 1",
            ),
            ("1,,1970-01-01,1970-01-02\n", "line 2: org-id is empty"),
            (
                "1,a,1970-01-02,1970-01-02\n",
                "line 2: valid-until must be after valid-from",
            ),
            (
                "1,a,,1970-01-05\n1,b,1970-01-04,\n",
                "line 2: another entry of SIM card 1 begins before",
            ),
            (
                "1,a,1970-01-01,\n1,,1970-01-01,\n",
                "line 3: SIM card 1 is assigned to no organization",
            ),
        ] {
            let text = problem(&format!("{header}{rows}"));
            assert!(text.contains(error), "{text}");
        }
    }

    #[test]
    fn conflicting_owners_are_refused_and_repetitions_are_dropped() {
        let text = problem("sim-card-id,org-id\n1,a\n1,b\n");
        assert!(
            text.contains("line 3: SIM card 1 is assigned to b"),
            "{text}"
        );
        assert_eq!(read("sim-card-id,org-id\n1,a\n1,a\n").unwrap().len(), 1);
        // The first conflict of the file is named, wherever the SIM card is in their order.
        let text = problem("sim-card-id,org-id\n2,a\n1,a\n2,b\n1,b\n");
        assert!(
            text.contains(
                "line 4: SIM card 2 is assigned to b, but an earlier entry has it assigned to a"
            ),
            "{text}"
        );
    }
}
