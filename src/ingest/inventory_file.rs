//! The inventory as a file: JSON or CSV, read whole, because a part of an inventory would reject records.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use chrono::{DateTime, NaiveDate, Utc};
use serde::Deserialize;

use super::csv_line::{Columns, Splitter};
use crate::domain::{Assignment, OrganizationId, SimCardId};

const SIM_CARD: &str = "sim-card-id";
const ORGANIZATION: &str = "org-id";
const VALID_FROM: &str = "valid-from";

/// An entry as it is written.
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

/// Reads an inventory file: a JSON array of `{"sim-card-id", "org-id", "valid-from"?}`, or CSV with these
/// columns. Without `valid-from` the SIM card has belonged to the organization since ever.
///
/// # Errors
/// The file cannot be read or an entry is wrong; the error names the entry's place and the value at fault.
pub fn read_inventory(path: &Path) -> anyhow::Result<Vec<Assignment>> {
    let name = path.display();
    let text = std::fs::read_to_string(path).with_context(|| {
        format!(
            "reading the inventory {name}, which must be JSON, as [{{\"sim-card-id\": \"89440001\", \"org-id\": \"a01b7\"}}], \
             or CSV with these columns"
        )
    })?;
    parse_inventory(&text).with_context(|| format!("inventory {name}"))
}

/// Reads an inventory that is JSON or CSV, as its beginning tells.
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
    let entries: Vec<Entry> = serde_path_to_error::deserialize(deserializer)
        .map_err(|error| anyhow!("{}: {}", error.path(), error.inner()))?;
    check(
        entries
            .into_iter()
            .enumerate()
            .map(|(index, entry)| (format!("entry {}", index + 1), entry)),
    )
}

fn read_csv(text: &str) -> anyhow::Result<Vec<Assignment>> {
    let mut lines = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line));
    let (_, first) = lines.next().unwrap_or((1, ""));
    let header = |problem: String| anyhow!("line 1: {problem}");
    let columns = Columns::parse(first.as_bytes()).map_err(header)?;
    let sim_card = columns.require(SIM_CARD).map_err(header)?;
    let organization = columns.require(ORGANIZATION).map_err(header)?;
    let valid_from = columns.find(VALID_FROM).map_err(header)?;
    let mut splitter = Splitter::default();
    let mut entries = vec![];
    for (number, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let fields = splitter
            .split(line.as_bytes())
            .ok_or_else(|| anyhow!("line {number}: a quote is not closed"))?;
        if fields.len() != columns.len() {
            bail!(
                "line {number}: {} fields, the header has {} columns",
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
    check(entries.into_iter())
}

/// Turns entries, each with its place, into assignments.
fn check(entries: impl Iterator<Item = (String, Entry)>) -> anyhow::Result<Vec<Assignment>> {
    let mut assignments: Vec<Assignment> = vec![];
    let mut seen: HashMap<(SimCardId, Option<DateTime<Utc>>), OrganizationId> = HashMap::new();
    for (place, entry) in entries {
        let assignment = Assignment {
            sim_card: SimCardId::parse(&entry.sim_card).map_err(|error| anyhow!("{place}: {SIM_CARD}: {error}"))?,
            organization: OrganizationId::parse(&entry.organization)
                .map_err(|error| anyhow!("{place}: {ORGANIZATION}: {error}"))?,
            valid_from: entry.valid_from.map(|text| instant(&text)).transpose().map_err(|text| {
                anyhow!("{place}: {VALID_FROM}: '{text}' is neither a date nor a date-time (ex: 2022-02-18, 2022-02-18T00:00:00Z)")
            })?,
        };
        let key = (assignment.sim_card.clone(), assignment.valid_from);
        match seen.insert(key, assignment.organization.clone()) {
            None => assignments.push(assignment),
            Some(before) if before == assignment.organization => {}
            Some(before) => bail!(
                "{place}: SIM card {} is given to {} from the instant from which it was given to {before}",
                assignment.sim_card,
                assignment.organization
            ),
        }
    }
    Ok(assignments)
}

/// A date, which is its midnight in UTC, or a date-time with an offset.
fn instant(text: &str) -> Result<DateTime<Utc>, String> {
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
        .ok_or_else(|| text.to_owned())
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
    fn json_and_csv_say_the_same() {
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
    fn an_error_names_place_and_value() {
        let text = problem(
            r#"[{"sim-card-id": "1", "org-id": "a"}, {"sim-card-id": "2", "org-id": "a/b"}]"#,
        );
        assert!(text.contains("entry 2: org-id: 'a/b'"), "{text}");
        let text = problem(r#"[{"sim-card-id": "1"}]"#);
        assert!(text.contains("[0]") && text.contains("org-id"), "{text}");
        let text = problem(r#"[{"sim-card-id": 1, "org-id": "a"}]"#);
        assert!(text.contains("[0].sim-card-id"), "{text}");
        let text = problem("sim-card-id,org-id\n1,a\n,a\n");
        assert!(text.contains("line 3: sim-card-id: ''"), "{text}");
        let text = problem("sim-card-id,org-id\n1,a,x\n");
        assert!(text.contains("line 2: 3 fields"), "{text}");
        let text = problem("sim-card-id,organization\n1,a\n");
        assert!(text.contains("no column org-id"), "{text}");
        let text = problem("sim-card-id,org-id,valid-from\n1,a,soon\n");
        assert!(text.contains("line 2: valid-from: 'soon'"), "{text}");
        assert!(problem("").contains("line 1: the header is empty"));
    }

    #[test]
    fn two_owners_at_once_are_refused_and_a_repetition_is_not() {
        let text = problem("sim-card-id,org-id\n1,a\n1,b\n");
        assert!(text.contains("line 3: SIM card 1 is given to b"), "{text}");
        assert_eq!(read("sim-card-id,org-id\n1,a\n1,a\n").unwrap().len(), 1);
    }
}
