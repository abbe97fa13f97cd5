//! The examples in docs/ produce the output shown below them, and the guides' links resolve.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::TestDatabase;
use crate::support::program::{inventory, simusage};
use crate::support::server::Server;
use crate::support::stack::{path, text};
use crate::support::usage::Files;

const BASE: &str = "127.0.0.1:8000";
const GUIDES: [&str; 7] = [
    "getting-started",
    "ingest",
    "api",
    "operations",
    "security",
    "migrating",
    "benchmarks",
];

/// A fenced block in Markdown.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    language: String,
    text: String,
    /// The line number of its opening fence, from 1.
    line: usize,
    /// Whether it directly follows the previous block.
    follows: bool,
}

fn blocks(markdown: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = vec![];
    let mut open: Option<Block> = None;
    let mut last_fence = 0;
    for (index, line) in markdown.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => {
                blocks.extend(open.take());
                last_fence = index;
            }
            (Some(language), None) => {
                let follows = !blocks.is_empty() && index == last_fence + 1;
                open = Some(Block {
                    language: language.to_owned(),
                    text: String::new(),
                    line: index + 1,
                    follows,
                });
            }
            (None, Some(block)) => block.text.push_str(&(line.to_owned() + "\n")),
            (None, None) => {}
        }
    }
    assert_eq!(open, None, "a block is not closed");
    blocks
}

/// Runs an example and returns its output, or `None` if the block is not an example.
fn run(block: &Block, files: &Files, address: &str, token: &str) -> Option<String> {
    let text = block.text.replace(BASE, address);
    let mut command = match block.language.as_str() {
        "console" => {
            let script: Vec<&str> = text
                .lines()
                .filter_map(|line| line.strip_prefix("$ "))
                .collect();
            assert_eq!(
                script.len(),
                text.lines().count(),
                "line {}: a line does not start with `$ `",
                block.line
            );
            let mut bash = Command::new("bash");
            bash.args(["-euo", "pipefail", "-c", &script.join("\n")]);
            bash
        }
        "python" => {
            let mut python = Command::new("python3");
            python.arg(files.write("example.py", text));
            python
        }
        "javascript" => {
            let mut node = Command::new("node");
            node.arg(files.write("example.mjs", text));
            node
        }
        _ => return None,
    };
    for proxy in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env_remove(proxy);
    }
    let output = command
        .env("TOKEN", token)
        .stdin(Stdio::null())
        .output()
        .expect("the example starts");
    let shown = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "line {}: {:?}: {shown}{errors}",
        block.line,
        output.status
    );
    Some(shown)
}

#[tokio::test]
async fn every_api_example_produces_the_output_shown_below_it() {
    let database = TestDatabase::migrated().await;
    let (files, inventory) = (Files::new(), inventory());
    let generated = simusage(
        database.url(),
        &[
            "generate",
            "usage",
            "--inventory",
            inventory.to_str().unwrap(),
        ],
    );
    let file = files.write("usage.ndjson", generated.stdout);
    let loaded = simusage(
        database.url(),
        &["ingest", "--inventory", inventory.to_str().unwrap(), &file],
    );
    assert_eq!(loaded.status, 0, "{loaded:?}");
    let open = Server::start(database.url());
    let all = blocks(&text("docs/api.md"));
    let (mut ran, mut compared, mut token) = (0, 0, None);
    for (index, block) in all.iter().enumerate() {
        if block.text.contains("TOKEN") && token.is_none() {
            let created = simusage(database.url(), &["token", "create", "docs"]);
            assert_eq!(created.status, 0, "{created:?}");
            token = Some(created.stdout.trim().to_owned());
            wait_until_a_token_is_required(&open);
        }
        let (address, token) = (open.address().to_owned(), token.clone().unwrap_or_default());
        let Some(shown) = run(block, &files, &address, &token) else {
            continue;
        };
        ran += 1;
        let Some(expected) = all.get(index + 1).filter(|next| next.follows) else {
            continue;
        };
        compared += 1;
        let place = format!("docs/api.md:{}", block.line);
        if expected.language == "json" {
            assert_eq!(
                without_varying_fields(&shown),
                without_varying_fields(&expected.text),
                "{place} answers\n{shown}"
            );
        } else {
            assert_eq!(shown.replace("\r\n", "\n"), expected.text, "{place}");
        }
    }
    assert!(
        ran >= 14 && compared >= 13,
        "{ran} examples ran, {compared} were compared"
    );
}

/// A response without the fields that differ between runs: the time of the last ingest, and the
/// cursor.
fn without_varying_fields(text: &str) -> Value {
    let mut answer: Value =
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let (head, items) = match &mut answer {
        Value::Object(answer) => {
            let (items, head): (Vec<_>, Vec<_>) =
                answer.iter_mut().partition(|(name, _)| *name == "items");
            (head, items)
        }
        _ => panic!("{text}"),
    };
    let items = items
        .into_iter()
        .filter_map(|(_, items)| items.as_array_mut());
    let items = items
        .flatten()
        .filter_map(|item| item.get_mut("last-ingested-at"));
    let head = head
        .into_iter()
        .filter(|(name, _)| *name == "last-ingested-at");
    for instant in head.map(|(_, instant)| instant).chain(items) {
        assert!(
            instant
                .as_str()
                .is_some_and(|text| text.parse::<chrono::DateTime<chrono::Utc>>().is_ok()),
            "{instant}"
        );
        *instant = Value::Null;
    }
    if let Some(Value::String(next)) = answer.get_mut("next") {
        next.truncate(next.find("&cursor=").unwrap_or(next.len()));
    }
    answer
}

fn wait_until_a_token_is_required(server: &Server) {
    let mut attempts_left = 100;
    while !server.get("/api/v1/inventory").starts_with("HTTP/1.1 401 ") {
        attempts_left -= 1;
        assert!(
            attempts_left > 0,
            "requests without a token are still accepted"
        );
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

#[tokio::test]
async fn an_export_made_as_the_migration_guide_describes_is_ingested_completely() {
    let database = TestDatabase::migrated().await;
    let connection = database.connect().await;
    let old = "create table usage (sim_card_id text, bytes_used bigint, date timestamptz);
               insert into usage select '8944000' || 1 + number % 9, number, timestamptz '2026-02-01' + number * interval '7.000001 minutes'
               from generate_series(0, 4999) as number";
    connection.batch_execute(old).await.unwrap();
    let all = blocks(&text("docs/migrating.md"));
    let sql = |beginning: &str| {
        let found = all
            .iter()
            .find(|block| block.language == "sql" && block.text.starts_with(beginning));
        found
            .unwrap_or_else(|| panic!("no SQL block starts with {beginning}"))
            .text
            .clone()
    };
    // COPY has its own protocol, so only the statement within it is run.
    let export = sql("copy (");
    let (_, statement) = export.split_once("copy (").unwrap();
    let (statement, _) = statement
        .rsplit_once(") to stdout with (format csv, header)")
        .unwrap();
    let rows = connection.query(statement, &[]).await.unwrap();
    let csv = rows
        .iter()
        .fold("sim-card-id,bytes-used,date\n".to_owned(), |csv, row| {
            let (card, bytes, date): (&str, i64, &str) = (
                row.get("sim-card-id"),
                row.get("bytes-used"),
                row.get("date"),
            );
            format!("{csv}{card},{bytes},{date}\n")
        });
    let files = Files::new();
    let file = files.write("usage-before.csv", csv);
    let inventory = inventory();
    let run = simusage(
        database.url(),
        &["ingest", "--inventory", inventory.to_str().unwrap(), &file],
    );
    assert_eq!(run.status, 0, "{run:?}");
    let compared = connection
        .query_one(&sql("select count(*) as records"), &[])
        .await
        .unwrap();
    assert_eq!(
        compared.get::<_, i64>("records"),
        i64::try_from(rows.len()).unwrap()
    );
    let exported = "select sum(bytes_used)::bigint from usage where date < '2026-03-01'";
    let shown = crate::support::usage::SHOWN_BYTES;
    assert_eq!(
        database.number(shown).await,
        database.number(exported).await
    );
    connection.batch_execute("drop table usage").await.unwrap();
}

#[test]
fn every_link_in_the_guides_resolves() {
    let readme = text("README.md");
    for guide in GUIDES {
        let name = format!("docs/{guide}.md");
        assert!(
            readme.contains(&format!("({name})")),
            "the README does not link to {name}"
        );
        for target in text(&name)
            .split("](")
            .skip(1)
            .map(|rest| rest.split(')').next().unwrap())
        {
            if target.starts_with("http") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = path("docs").join(Path::new(file));
            assert!(
                file.exists(),
                "{name} links to {target}, which does not exist"
            );
            if !anchor.is_empty() {
                let heading = |line: &str| {
                    line.trim_start_matches('#')
                        .trim()
                        .to_lowercase()
                        .replace(' ', "-")
                };
                let found = std::fs::read_to_string(&file).unwrap();
                let found = found
                    .lines()
                    .any(|line| line.starts_with('#') && heading(line) == anchor);
                assert!(found, "{name} links to {target}, which does not exist");
            }
        }
    }
}

/// The limits in docs/security.md: each setting, and its default as written there.
fn documented_limits() -> Vec<(String, String)> {
    let text = text("docs/security.md");
    let rows = text.lines().filter_map(|line| {
        let cells: Vec<_> = line.strip_prefix('|')?.split('|').map(str::trim).collect();
        let names: Vec<_> = cells.get(2)?.split('`').skip(1).step_by(2).collect();
        let defaults: Vec<_> = cells.get(3)?.split(", ").collect();
        Some((
            names.into_iter().map(str::to_owned).collect::<Vec<_>>(),
            defaults.join(", "),
        ))
    });
    rows.flat_map(|(names, defaults)| {
        let defaults: Vec<String> = defaults.split(", ").map(str::to_owned).collect();
        // One default is that of all settings of the row.
        let default = move |index: usize| {
            let index = if defaults.len() == 1 { 0 } else { index };
            defaults.get(index).cloned().unwrap_or_default()
        };
        let limits = names.into_iter().enumerate();
        limits
            .map(move |(index, name)| (name, default(index)))
            .collect::<Vec<_>>()
    })
    .collect()
}

#[test]
fn the_page_about_security_names_each_limit_with_its_default() {
    // Settings with a number that limit no client.
    const OTHERS: [&str; 6] = [
        "workers",
        "pool_size",
        "drain_ms",
        "shutdown_timeout_ms",
        "hsts_days",
        "cache_mb",
    ];
    let config: toml::Table = text("config.toml").parse().unwrap();
    let documented = documented_limits();
    let serve = config["serve"].as_table().unwrap();
    for (name, default) in &documented {
        let value = serve
            .get(name)
            .unwrap_or_else(|| panic!("there is no serve.{name}"));
        assert_eq!(default.replace(',', ""), value.to_string(), "{name}");
    }
    for (name, _) in serve.iter().filter(|(_, value)| value.is_integer()) {
        let is_named = documented.iter().any(|(documented, _)| documented == name);
        assert!(is_named != OTHERS.contains(&name.as_str()), "{name}");
    }
}
