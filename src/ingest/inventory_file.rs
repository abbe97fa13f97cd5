//! Reads an inventory from a JSON or CSV file. One invalid entry refuses the whole file, because
//! records of a SIM card missing from the inventory would be rejected.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use chrono::{DateTime, Datelike as _, NaiveDate, Utc};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::csv_line::{Columns, HeaderError, Splitter};
use crate::domain::{Assignment, OrganizationId, SimCardId};

const SIM_CARD: &str = "sim-card-id";
const ORGANIZATION: &str = "org-id";
const VALID_FROM: &str = "valid-from";

/// An entry before validation.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(rename = "sim-card-id", alias = "sim_card_id")]
    sim_card: String,
    #[serde(rename = "org-id", alias = "org_id")]
    organization: String,
    #[serde(rename = "valid-from", alias = "valid_from", default)]
    valid_from: Option<String>,
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

/// Reads an inventory file: a JSON array of `{"sim-card-id", "org-id", "valid-from"?}`, or CSV with
/// these columns. An entry without `valid-from` applies from the beginning of time.
///
/// # Errors
/// Returns an error if the file cannot be read or an entry is invalid; it names the entry and the
/// value.
pub fn read_inventory(path: &Path) -> anyhow::Result<Vec<Assignment>> {
    let name = path.display();
    let text = std::fs::read_to_string(path).with_context(|| {
        format!(
            "reading the inventory {name} (expected JSON such as \
             [{{\"sim-card-id\": \"89440001\", \"org-id\": \"a01b7\"}}], or CSV with these columns)"
        )
    })?;
    parse_inventory(&text).with_context(|| format!("inventory {name}"))
}

/// Parses JSON if the text starts with `[` or `{`, and CSV otherwise.
pub(super) fn parse_inventory(text: &str) -> anyhow::Result<Vec<Assignment>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let is_json = text.trim_start().starts_with(['[', '{']);
    if is_json {
        read_json(text)
    } else {
        read_csv(text)
    }
}

fn read_json(text: &str) -> anyhow::Result<Vec<Assignment>> {
    let deserializer = &mut serde_json::Deserializer::from_str(text);
    let entries: Vec<JsonObject<Entry>> = serde_path_to_error::deserialize(deserializer)
        .map_err(|error| anyhow!("{}: {}", error.path(), error.inner()))?;
    assignments(
        entries
            .into_iter()
            .enumerate()
            .map(|(index, JsonObject(entry))| (format!("entry {}", index + 1), entry)),
    )
}

fn read_csv(text: &str) -> anyhow::Result<Vec<Assignment>> {
    let mut lines = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line));
    let (_, first) = lines.next().unwrap_or((1, ""));
    let in_header = |error: HeaderError| anyhow!("line 1: {error}");
    let columns = Columns::parse(first.as_bytes()).map_err(in_header)?;
    let sim_card = columns.require(SIM_CARD).map_err(in_header)?;
    let organization = columns.require(ORGANIZATION).map_err(in_header)?;
    let valid_from = columns.find(VALID_FROM).map_err(in_header)?;
    let mut splitter = Splitter::default();
    let mut entries = vec![];
    for (number, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let fields = splitter
            .split(line.as_bytes())
            .map_err(|error| anyhow!("line {number}: {error}"))?;
        if fields.len() != columns.len() {
            bail!(
                "line {number}: the line has {} fields and the header {} columns; quote fields that \
                 contain commas",
                fields.len(),
                columns.len()
            );
        }
        let text = |index: usize| String::from_utf8_lossy(fields.get(index)).into_owned();
        let entry = Entry {
            sim_card: text(sim_card),
            organization: text(organization),
            valid_from: valid_from.map(text).filter(|text| !text.is_empty()),
        };
        entries.push((format!("line {number}"), entry));
    }
    assignments(entries.into_iter())
}

/// Validates entries, each with its location for error messages. Repeated entries are dropped.
fn assignments(entries: impl Iterator<Item = (String, Entry)>) -> anyhow::Result<Vec<Assignment>> {
    let mut assignments: Vec<Assignment> = vec![];
    let mut seen: HashMap<(SimCardId, Option<DateTime<Utc>>), OrganizationId> = HashMap::new();
    for (location, entry) in entries {
        let valid_from = |text: String| {
            parse_instant(&text).ok_or_else(|| {
                anyhow!(
                    "{location}: {VALID_FROM}: '{text}' is not a date or a date-time with an offset \
                     (ex: 2022-02-18, 2022-02-18T00:00:00Z)"
                )
            })
        };
        let assignment = Assignment {
            sim_card: SimCardId::parse(&entry.sim_card)
                .map_err(|error| anyhow!("{location}: {SIM_CARD}: {error}"))?,
            organization: OrganizationId::parse(&entry.organization)
                .map_err(|error| anyhow!("{location}: {ORGANIZATION}: {error}"))?,
            valid_from: entry.valid_from.map(valid_from).transpose()?,
        };
        let key = (assignment.sim_card.clone(), assignment.valid_from);
        match seen.insert(key, assignment.organization.clone()) {
            None => assignments.push(assignment),
            Some(before) if before == assignment.organization => {}
            Some(before) => bail!(
                "{location}: SIM card {} is assigned to {}, but an earlier entry assigns it to {before} \
                 from the same instant; remove one of them",
                assignment.sim_card,
                assignment.organization
            ),
        }
    }
    Ok(assignments)
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

    fn read(text: &str) -> anyhow::Result<Vec<Assignment>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("inventory");
        std::fs::write(&path, text).unwrap();
        read_inventory(&path)
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
        assert_eq!(assignments, read(csv).unwrap());
        assert_eq!(assignments[0].valid_from, None);
        assert_eq!(
            assignments[1].valid_from.unwrap().timestamp(),
            1_645_142_400
        );
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
    fn conflicting_owners_are_refused_and_repetitions_are_dropped() {
        let text = problem("sim-card-id,org-id\n1,a\n1,b\n");
        assert!(
            text.contains("line 3: SIM card 1 is assigned to b"),
            "{text}"
        );
        assert_eq!(read("sim-card-id,org-id\n1,a\n1,a\n").unwrap().len(), 1);
    }
}
