//! Loading the inventory, and listing it by page and prefix.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{ChildStdin, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::TestDatabase;
use crate::support::api::Api;
use crate::support::program::{Run, command, simusage};
use crate::support::usage::Files;

const COUNTED: &str = "select case when (select assignments from inventory_version) = count(*) \
                       and not exists (select from organizations where assignments <> (select count(*) \
                       from sim_card_assignments where organization_id = organizations.id)) \
                       then count(*) else -1 end from sim_card_assignments";

fn load(database: &TestDatabase, files: &Files, inventory: &str) -> Run {
    let file = files.write("inventory.csv", inventory);
    let run = simusage(database.url(), &["ingest", "--json", "--inventory", &file]);
    assert_eq!(run.status, 0, "{run:?}");
    run
}

async fn version(database: &TestDatabase) -> i64 {
    database
        .number("select version from inventory_version")
        .await
}

#[tokio::test]
async fn loading_reports_what_it_changed_and_counts_it() {
    let database = TestDatabase::migrated().await;
    let files = Files::new();
    let header = "sim-card-id,org-id,valid-from\n";
    let first = format!("{header}3,b,\n1,a,\n2,a,\n2,b,2020-02-01\n");
    let changes = |added, moved, unchanged, left| json!({"added": added, "moved": moved, "unchanged": unchanged, "left": left, "removed": 0});
    let run = load(&database, &files, &first);
    assert_eq!(run.json()["inventory"], changes(4, 0, 0, 0));
    assert_eq!(database.number(COUNTED).await, 4);
    let loaded = version(&database).await;

    // Loading the same file again changes nothing, so no ingest reloads the inventory.
    let run = load(&database, &files, &first);
    assert_eq!(run.json()["inventory"], changes(0, 0, 4, 0));
    assert_eq!(version(&database).await, loaded);

    let second =
        format!("{header}1,b,\n2,a,\n2,c,2020-03-01T00:00:00.000001Z\n4,d,\n1,a,2020-01-01\n");
    let run = load(&database, &files, &second);
    assert_eq!(run.json()["inventory"], changes(3, 1, 1, 2));
    assert_eq!(run.json()["assignments"], 5);
    assert_eq!(database.number(COUNTED).await, 7);
    assert_ne!(version(&database).await, loaded);
    let ids = "select max(id)::bigint from sim_cards";
    assert_eq!(database.number(ids).await, 4);

    let file = files.write("inventory.csv", &second);
    let run = simusage(database.url(), &["ingest", "--inventory", &file]);
    let text =
        "inventory: 5 assignments (0 added, 0 moved, 5 unchanged; 2 not in the file were left)";
    assert_eq!(run.stdout.lines().next(), Some(text));

    // Changes by SQL are counted, too, and have a new version.
    let mut versions = BTreeSet::from([version(&database).await]);
    let connection = database.connect().await;
    for change in [
        "delete from sim_card_assignments where valid_from > '2020-02-15'",
        "update sim_card_assignments set organization_id = (select id from organizations where name = 'd')",
        "truncate sim_card_assignments",
    ] {
        connection.batch_execute(change).await.unwrap();
        assert!(database.number(COUNTED).await >= 0, "{change}");
        assert!(versions.insert(version(&database).await), "{change}");
    }
}

/// (SIM card, valid from, organization), in the order of lists.
type Model = BTreeSet<(String, String, String)>;

fn model() -> Model {
    let mut model = Model::new();
    let organizations = ["a", "B", "8", "89", "8x", "~~"];
    for number in 0..60 {
        let iccid = match number % 4 {
            0 => format!("89{number}"),
            1 => format!("8{number}x"),
            2 => format!("a{number}"),
            _ => format!("{number}"),
        };
        let owner = |shift: usize| organizations[(number * number + shift) % 6].to_owned();
        model.insert((iccid.clone(), String::new(), owner(0)));
        if number % 3 == 0 {
            model.insert((iccid.clone(), "2020-01-01T00:00:00Z".to_owned(), owner(1)));
            model.insert((iccid, "2021-01-01T00:00:00Z".to_owned(), owner(2)));
        }
    }
    for iccid in ["8", "89", "~", "!"] {
        model.insert((iccid.to_owned(), String::new(), "a".to_owned()));
    }
    model
}

/// Where the SIM card's next assignment begins.
fn until(model: &Model, iccid: &str, valid_from: &str) -> Option<String> {
    let later =
        |(card, from, _): &&(String, String, String)| card == iccid && from.as_str() > valid_from;
    model.iter().find(later).map(|(_, from, _)| from.clone())
}

/// Follows `next` from a path, and returns all items and the total of each page.
async fn follow(api: &Api, token: &str, path: &str) -> (Vec<Value>, Vec<Value>) {
    let (mut items, mut totals) = (vec![], vec![]);
    let mut next = Some(path.to_owned());
    while let Some(path) = next {
        let mut answer = api.get_as(token, &path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        items.append(answer.body["items"].as_array_mut().unwrap());
        totals.push(answer.body["total"].take());
        next = answer.body["next"].as_str().map(str::to_owned);
    }
    (items, totals)
}

#[actix_web::test]
async fn every_filter_lists_exactly_its_assignments_in_the_order_of_bytes() {
    let database = TestDatabase::migrated().await;
    let model = model();
    let mut inventory = "sim-card-id,valid-from,org-id\n".to_owned();
    for (iccid, valid_from, organization) in model.iter().rev() {
        writeln!(inventory, "{iccid},{valid_from},{organization}").unwrap();
    }
    load(&database, &Files::new(), &inventory);
    let all = ["a", "B", "8", "89", "8x", "~~"].as_slice();
    let scopes = [("admin", all), ("two", &["8", "a"]), ("one", &["8x"])];
    let mut tokens = vec![];
    for (name, organizations) in scopes {
        let mut arguments = vec!["token", "create", name];
        for organization in organizations.iter().filter(|_| name != "admin") {
            arguments.extend(["--organization", organization]);
        }
        let run = simusage(database.url(), &arguments);
        assert_eq!(run.status, 0, "{run:?}");
        tokens.push((run.stdout.trim().to_owned(), organizations));
    }
    let api = Api::new(&database.config()).await;
    for (token, scope) in &tokens {
        for organization in [None, Some("8"), Some("a")] {
            if organization.is_some_and(|organization| !scope.contains(&organization)) {
                continue;
            }
            for prefix in ["", "8", "89", "8x", "a", "~", "zz"] {
                let expected: Vec<Value> = model
                    .iter()
                    .filter(|(iccid, _, owner)| {
                        scope.contains(&owner.as_str())
                            && organization.is_none_or(|organization| organization == owner)
                            && (iccid.starts_with(prefix) || owner.starts_with(prefix))
                    })
                    .map(|(iccid, valid_from, owner)| {
                        let valid_from = (!valid_from.is_empty()).then_some(valid_from);
                        json!({
                            "simcard": iccid,
                            "organization": owner,
                            "valid-from": valid_from,
                            "valid-until": until(&model, iccid, valid_from.map_or("", String::as_str)),
                        })
                    })
                    .collect();
                let mut query = String::new();
                if let Some(organization) = organization {
                    write!(query, "organization={organization}&").unwrap();
                }
                if !prefix.is_empty() {
                    write!(query, "q={prefix}&").unwrap();
                }
                for size in [7, 1000] {
                    let path = format!("/api/v1/inventory?{query}size={size}");
                    let (items, totals) = follow(&api, token, &path).await;
                    assert_eq!(items, expected, "{path}");
                    assert!(
                        totals.iter().all(|total| *total == expected.len()),
                        "{path}"
                    );
                }
                let path = format!("/api/v1/inventory?{query}size=5&page=3");
                let page = api.get_as(token, &path).await.body;
                let end = expected.len().min(15);
                assert_eq!(page["items"], json!(expected[end.min(10)..end]), "{path}");
                let path = format!("/api/v1/inventory?{query}format=ndjson");
                let rows = api.get_as(token, &path).await.text;
                let rows: Vec<Value> = rows
                    .lines()
                    .map(|line| serde_json::from_str(line).unwrap())
                    .collect();
                assert_eq!(rows, expected, "{path}");
            }
        }
    }
}

#[actix_web::test]
async fn a_long_list_is_counted_up_to_a_limit_and_not_skipped_through() {
    let database = TestDatabase::migrated().await;
    let mut inventory = "sim-card-id,org-id\n".to_owned();
    for number in 0..1_500 {
        writeln!(inventory, "{number:04},o{}", number % 2).unwrap();
    }
    load(&database, &Files::new(), &inventory);
    let api = Api::new(&database.config()).await;
    for (query, total) in [
        ("", json!(1_500)),
        ("organization=o1", json!(750)),
        ("q=0", json!(1_000)),
        ("q=1", json!(500)),
        ("q=o", json!(1_500)),
        ("q=o1", json!(750)),
    ] {
        let path = format!("/api/v1/inventory?{query}");
        assert_eq!(api.ok(&path).await["total"], total, "{path}");
    }
    load(&database, &Files::new(), "sim-card-id,org-id\n0,o0\n");
    let (items, totals) = {
        let first = api.ok("/api/v1/inventory?q=0&size=600").await;
        let second = api.ok(first["next"].as_str().unwrap()).await;
        let items = [&first, &second].map(|page| page["items"].as_array().unwrap().len());
        (items, [first["total"].clone(), second["total"].clone()])
    };
    assert_eq!((items, totals), ([600, 401], [Value::Null, Value::Null]));

    let answer = api.get("/api/v1/inventory?page=12&size=1000").await;
    assert_eq!(answer.status, 422);
    assert_eq!(
        answer.detail(),
        "Query parameter 'page' cannot be 12: it skips more than 10000 assignments; follow 'next' from an \
         earlier page, or stream the list with format=ndjson."
    );
    assert_eq!(
        api.ok("/api/v1/inventory?page=11&size=1000").await["items"],
        json!([])
    );
}

#[tokio::test]
async fn a_running_stream_notices_the_new_owner_of_a_sim_card_within_seconds() {
    const OWNED_BY: &str = "select count(*) from all_usage_records \
                            join organizations on id = organization_id where name = ";
    let (database, files) = (TestDatabase::migrated().await, Files::new());
    load(&database, &files, "sim-card-id,org-id\n1,a\n");
    // A header is read long before the first record. Without one, nothing has been read yet.
    for (format, header) in [("ndjson", ""), ("csv", "sim-card-id,bytes-used,date\n")] {
        let owner = format!("{format}-owner");
        let arguments = ["ingest", "--format", format, "--source-id", format, "-"];
        let mut child = command(database.url(), &arguments)
            .env("SIMUSAGE_INGEST_BATCH_AGE_MS", "100")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let send = |stdin: &mut ChildStdin, numbers: std::ops::Range<u32>| {
            let line = |number| match format {
                "csv" => format!("1,5,2020-02-01T00:00:{number:02}Z\n"),
                _ => format!(
                    "{{\"sim-card-id\": \"1\", \"bytes-used\": 5, \"date\": \"2020-02-01T00:00:{number:02}Z\"}}\n"
                ),
            };
            let lines: String = numbers.map(line).collect();
            stdin.write_all(lines.as_bytes()).unwrap();
        };
        let until = |name: String, count| {
            let database = &database;
            async move {
                let query = format!("{OWNED_BY}'{name}'");
                database
                    .until_at_least(&query, count, Duration::from_secs(30))
                    .await;
            }
        };
        stdin.write_all(header.as_bytes()).unwrap();
        // Long enough for the ingest to start, and then for it to notice the change while idle.
        tokio::time::sleep(Duration::from_secs(3)).await;
        load(
            &database,
            &files,
            &format!("sim-card-id,org-id\n1,{owner}\n"),
        );
        tokio::time::sleep(Duration::from_secs(3)).await;
        send(&mut stdin, 0..9);
        until(owner.clone(), 9).await;
        // Records are stored all the time while it changes again.
        load(
            &database,
            &files,
            &format!("sim-card-id,org-id\n1,{owner}-2\n"),
        );
        for number in 10..40 {
            send(&mut stdin, number..number + 1);
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        until(format!("{owner}-2"), 5).await;
        drop(stdin);
        assert!(child.wait().unwrap().success());
    }
}

#[tokio::test]
async fn the_ids_of_an_organization_follow_each_other() {
    let database = TestDatabase::migrated().await;
    let files = Files::new();
    for first in [0_u64, 300] {
        let mut lines = String::from("sim-card-id,org-id\n");
        for number in first..first + 300 {
            writeln!(lines, "{},org{}", 8_943_000_000 + number, number % 3).unwrap();
        }
        load(&database, &files, &lines);
    }
    let changes = "select count(*) from (
                       select organization_id, lag(organization_id) over (order by sim_card_id) as before
                       from sim_card_assignments
                   ) as assignments where organization_id <> before";
    assert_eq!(database.number(changes).await, 5);
    let wrong = "select count(*) from sim_card_assignments join sim_cards on sim_card_id = sim_cards.id
                 join organizations on organization_id = organizations.id
                 where name <> 'org' || (sim_cards.iccid::bigint % 3) or sim_cards.iccid <> sim_card_assignments.iccid";
    assert_eq!(database.number(wrong).await, 0);
}

fn item(simcard: &str, organization: &str, from: Option<&str>, until: Option<&str>) -> Value {
    json!({"simcard": simcard, "organization": organization, "valid-from": from, "valid-until": until})
}

fn token_of(database: &TestDatabase, organization: &str) -> String {
    let arguments = [
        "token",
        "create",
        organization,
        "--organization",
        organization,
    ];
    let run = simusage(database.url(), &arguments);
    assert_eq!(run.status, 0, "{run:?}");
    run.stdout.trim().to_owned()
}

#[actix_web::test]
async fn an_assignment_says_until_when_it_lasts_and_can_be_ended() {
    let (database, files) = (TestDatabase::migrated().await, Files::new());
    let header = "sim-card-id,org-id,valid-from\n";
    let rows = "8,a,\n8,b,2020-03-01\n89,a,\n89,,2020-02-01\n9,8,2020-01-01\n9,,2020-02-01\n9,8,2020-03-01\n";
    let run = load(&database, &files, &format!("{header}{rows}"));
    assert_eq!(run.json()["inventory"]["added"], 7);
    assert_eq!(
        database
            .number("select assignments from inventory_version")
            .await,
        5
    );
    let (march, february) = ("2020-03-01T00:00:00Z", "2020-02-01T00:00:00Z");
    let all = [
        item("8", "a", None, Some(march)),
        item("8", "b", Some(march), None),
        item("89", "a", None, Some(february)),
        item("9", "8", Some("2020-01-01T00:00:00Z"), Some(february)),
        item("9", "8", Some(march), None),
    ];
    let api = Api::new(&database.config()).await;
    for (query, expected) in [
        ("", &all[..]),
        ("?size=2", &all[..2]),
        // Not those of 89, nor of the organization 8.
        ("?simcard=8", &all[..2]),
        ("?simcard=8&organization=b", &all[1..2]),
        ("?simcard=9&size=1", &all[3..4]),
        ("?simcard=89", &all[2..3]),
        ("?simcard=8&q=9", &[]),
        ("?simcard=7", &[]),
        ("?organization=a", &[all[0].clone(), all[2].clone()]),
        ("?q=89", &all[2..3]),
    ] {
        let page = api.ok(&format!("/api/v1/inventory{query}")).await;
        assert_eq!(page["items"], json!(expected), "{query}");
        let total = match query {
            "?size=2" => 5,
            "?simcard=9&size=1" => 2,
            _ => expected.len(),
        };
        assert_eq!(page["total"], total, "{query}");
    }
    let second = api.ok("/api/v1/inventory?simcard=9&size=1").await;
    let second = api.ok(second["next"].as_str().unwrap()).await;
    assert_eq!(
        (&second["items"], &second["total"]),
        (&json!(all[4..]), &json!(2))
    );

    // Records between an assignment and the next one have no owner.
    let usage = files.write(
        "usage.csv",
        "sim-card-id,bytes-used,date\n89,1,2020-01-31T23:59:59Z\n89,2,2020-02-01T00:00:00Z\n\
         9,4,2020-02-15T00:00:00Z\n9,8,2020-03-01T00:00:00Z\n",
    );
    let inventory = files.write("same.csv", format!("{header}{rows}"));
    let dry = simusage(
        database.url(),
        &[
            "ingest",
            "--json",
            "--dry-run",
            "--inventory",
            &inventory,
            &usage,
        ],
    );
    let run = simusage(database.url(), &["ingest", "--json", &usage]);
    for run in [dry, run] {
        assert_eq!(
            run.json()["reasons"],
            json!({"unassigned-sim-card": 2}),
            "{run:?}"
        );
    }

    // The CSV of the API is an inventory file with the same content.
    let exported = api.get("/api/v1/inventory?format=csv").await.text;
    assert!(
        exported
            .starts_with("sim-card-id,org-id,valid-from,valid-until\n8,a,,2020-03-01T00:00:00Z\n")
    );
    let loaded = version(&database).await;
    let file = files.write("exported.csv", exported);
    let arguments = [
        "ingest",
        "--json",
        "--inventory",
        &file,
        "--replace-inventory",
    ];
    let run = simusage(database.url(), &arguments);
    let unchanged = json!({"added": 0, "moved": 0, "unchanged": 7, "left": 0, "removed": 0});
    assert_eq!(run.json()["inventory"], unchanged);
    assert_eq!(version(&database).await, loaded);

    // A token sees when an assignment of its organization ended, and not to whom it went.
    let token = token_of(&database, "a");
    api.refresh_tokens().await;
    let page = api.get_as(&token, "/api/v1/inventory?simcard=8").await.body;
    assert_eq!(page["items"], json!(all[..1]));
    assert_eq!(
        api.get_as(&token, "/api/v1/inventory?simcard=9").await.body["items"],
        json!([])
    );
}

#[actix_web::test]
async fn a_line_that_gives_valid_until_says_that_the_assignment_lasts_until_then() {
    let (database, files) = (TestDatabase::migrated().await, Files::new());
    let header = "sim-card-id,org-id,valid-from,valid-until\n";
    let api = Api::new(&database.config()).await;
    let listed = async || api.ok("/api/v1/inventory").await["items"].clone();
    let changes = |added, moved, unchanged, left, removed| json!({"added": added, "moved": moved, "unchanged": unchanged, "left": left, "removed": removed});
    let day = |text: &str| format!("{text}T00:00:00Z");
    let of_a = |until: &str| item("7", "a", Some(&day("2026-01-01")), Some(&day(until)));
    // Later, earlier, and without an end, which says nothing about it.
    for (until, expected, shown) in [
        ("2026-03-01", changes(2, 0, 0, 0, 0), "2026-03-01"),
        ("2026-05-01", changes(1, 0, 1, 0, 1), "2026-05-01"),
        ("2026-02-01", changes(1, 0, 1, 1, 0), "2026-02-01"),
        ("", changes(0, 0, 1, 2, 0), "2026-02-01"),
        ("2026-06-01", changes(1, 0, 1, 0, 2), "2026-06-01"),
    ] {
        let run = load(
            &database,
            &files,
            &format!("{header}7,a,2026-01-01,{until}\n"),
        );
        assert_eq!(run.json()["inventory"], expected, "{until}");
        assert_eq!(listed().await, json!([of_a(shown)]), "{until}");
        let ends = "select case when (select ends from inventory_version) = count(*) then count(*) end \
                    from sim_card_assignments where organization_id is null";
        let expected = 1 + i64::from(shown == "2026-02-01");
        assert_eq!(database.number(ends).await, expected, "{until}");
    }
    // An end does not end the assignment that begins there.
    load(
        &database,
        &files,
        &format!("{header}7,b,2026-04-01,\n8,a,,2026-01-01\n"),
    );
    let run = load(
        &database,
        &files,
        &format!("{header}7,a,2026-01-01,2026-04-01\n"),
    );
    assert_eq!(run.json()["inventory"]["moved"], 0);
    let april = day("2026-04-01");
    let of_b = item("7", "b", Some(&april), Some(&day("2026-06-01")));
    let of_8 = item("8", "a", None, Some(&day("2026-01-01")));
    let all = json!([of_a("2026-04-01"), of_b, of_8]);
    assert_eq!(listed().await, all);
    // A file that contradicts a stored assignment is refused.
    let loaded = version(&database).await;
    let wrong = files.write(
        "wrong.csv",
        format!("{header}8,a,,2026-02-01\n7,a,2026-01-01,2026-05-01\n"),
    );
    let run = simusage(database.url(), &["ingest", "--inventory", &wrong]);
    assert_eq!(run.status, 1, "{run:?}");
    assert!(
        run.stderr.contains(
            "wrong.csv: SIM card 7: the file assigns it to a until 2026-05-01T00:00:00Z, but"
        ) && run
            .stderr
            .contains("begins on 2026-04-01T00:00:00Z; correct valid-until"),
        "{run:?}"
    );
    assert_eq!((listed().await, version(&database).await), (all, loaded));
    // A complete inventory has no such assignment.
    let arguments = [
        "ingest",
        "--json",
        "--inventory",
        &wrong,
        "--replace-inventory",
    ];
    let run = simusage(database.url(), &arguments);
    assert_eq!(run.json()["inventory"], changes(2, 0, 2, 0, 3), "{run:?}");
    let of_8 = item("8", "a", None, Some(&day("2026-02-01")));
    assert_eq!(listed().await, json!([of_a("2026-05-01"), of_8]));
    // With it, an end at the start of an assignment replaces it.
    load(&database, &files, &format!("{header}7,b,2026-05-01,\n"));
    let run = simusage(database.url(), &arguments);
    assert_eq!(run.json()["inventory"]["moved"], 1, "{run:?}");
    assert_eq!(listed().await[0], of_a("2026-05-01"));
}

#[tokio::test]
async fn changes_of_days_with_records_are_pointed_out() {
    let (database, files) = (TestDatabase::migrated().await, Files::new());
    let header = "sim-card-id,org-id,valid-from,valid-until\n";
    // What is loaded before the first record cannot differ from one.
    for rows in [
        "1,a,,\n2,a,,\n3,a,2020-01-01,2020-07-01\n",
        "1,b,,\n",
        "1,a,,\n",
    ] {
        let run = load(&database, &files, &format!("{header}{rows}"));
        assert_eq!(run.stderr, "", "{rows}");
    }
    let usage = "sim-card-id,bytes-used,date\n1,5,2020-05-05T12:00:00Z\n";
    let usage = files.write("usage.csv", usage);
    assert_eq!(simusage(database.url(), &["ingest", &usage]).status, 0);
    for (row, is_past) in [
        ("1,b,2020-05-01,", true),
        ("1,,2020-05-04,", true),
        ("1,c,,", true),
        ("3,a,2020-01-01,2020-03-01", true),
        ("2,b,2020-05-05T18:00:00Z,", true),
        // After the records, or without a change of the owner, or of a new SIM card.
        ("2,c,2020-05-06,", false),
        ("1,c,2020-03-01,", false),
        ("1,,2020-06-01,", false),
        ("3,,2020-04-01,", false),
        ("3,a,2020-01-01,2020-03-01", false),
        ("4,a,2020-05-01,", false),
    ] {
        let run = load(&database, &files, &format!("{header}{row}\n"));
        let warning = "the inventory has changed for days of which records are stored";
        assert_eq!(run.stderr.contains(warning), is_past, "{row}: {run:?}");
    }
}

#[tokio::test]
async fn a_file_can_replace_the_inventory() {
    let (database, files) = (TestDatabase::migrated().await, Files::new());
    let header = "sim-card-id,org-id,valid-from\n";
    load(
        &database,
        &files,
        &format!("{header}1,a,\n1,b,2025-03-01\n2,a,\n3,c,\n3,,2020-01-01\n"),
    );
    let usage = "sim-card-id,bytes-used,date\n1,5,2025-04-01T00:00:00Z\n2,7,2020-01-01T00:00:00Z\n";
    let usage = files.write("usage.csv", usage);
    assert_eq!(simusage(database.url(), &["ingest", &usage]).status, 0);

    // The date of the second assignment was mistyped.
    let corrected = files.write(
        "corrected.csv",
        format!("{header}1,a,\n1,b,2026-03-01\n2,b,\n"),
    );
    let arguments = ["ingest", "--inventory", &corrected, "--replace-inventory"];
    let run = simusage(database.url(), &arguments);
    assert_eq!(run.status, 0, "{run:?}");
    assert_eq!(
        run.stdout.lines().next().unwrap(),
        "inventory: 3 assignments (1 added, 1 moved, 1 unchanged; 3 not in the file were removed)"
    );
    assert!(
        run.stderr.contains("simusage inventory check"),
        "{}",
        run.stderr
    );
    assert_eq!(database.number(COUNTED).await, 3);
    assert_eq!(
        database.number("select ends from inventory_version").await,
        0
    );

    // Stored records keep their owners, and the difference is reported.
    let run = simusage(database.url(), &["inventory", "check", "--json"]);
    let difference = |stored: &str, current: Option<&str>, bytes| json!({"stored": stored, "current": current, "sim-cards": 1, "records": 1, "bytes": bytes});
    let expected = json!([difference("a", Some("b"), 7), difference("b", Some("a"), 5)]);
    assert_eq!((run.status, run.json()), (3, expected), "{run:?}");
    let run = simusage(database.url(), &["inventory", "check"]);
    assert_eq!(
        run.stdout,
        "STORED FOR  INVENTORY  SIM CARDS  RECORDS  BYTES\n\
         a           b                  1        1      7\n\
         b           a                  1        1      5\n"
    );

    // New records have the corrected owner.
    let late = files.write(
        "late.csv",
        "sim-card-id,bytes-used,date\n1,9,2025-04-02T00:00:00Z\n",
    );
    assert_eq!(simusage(database.url(), &["ingest", &late]).status, 0);
    let owned = "select sum(bytes)::bigint from all_usage_records join organizations on id = organization_id \
                 where name = 'a'";
    assert_eq!(database.number(owned).await, 7 + 9);

    let empty = files.write("empty.csv", header);
    let arguments = ["ingest", "--inventory", &empty, "--replace-inventory"];
    let run = simusage(database.url(), &arguments);
    assert!(
        run.status == 1 && run.stderr.contains("would remove all assignments"),
        "{run:?}"
    );
    assert_eq!(database.number(COUNTED).await, 3);
}

#[tokio::test]
async fn stored_owners_are_compared_with_the_inventory_at_every_level() {
    let (database, files) = (TestDatabase::migrated().await, Files::new());
    let header = "sim-card-id,org-id,valid-from\n";
    load(
        &database,
        &files,
        &format!("{header}1,a,\n2,a,\n3,a,\n4,a,\n"),
    );
    let agree = simusage(database.url(), &["inventory", "check"]);
    assert_eq!(
        (agree.status, agree.stdout.as_str()),
        (0, "all records agree with the inventory\n")
    );
    let mut connection = database.connect().await;
    for state in 0..3 {
        let bytes = 1 << (4 * state);
        let usage = format!(
            "sim-card-id,bytes-used,date\n1,{bytes},2020-02-01T11:59:59Z\n1,{bytes},2020-02-01T12:00:00Z\n\
             2,{bytes},2020-02-01T12:00:0{state}Z\n3,{bytes},2020-02-03T00:00:0{state}Z\n\
             4,{bytes},2020-02-03T00:00:0{state}Z\n4,{},2020-02-03T00:00:0{state}Z\n\
             1,{bytes},2020-02-09T00:00:0{state}Z\n",
            1_i64 << 39
        );
        let file = files.write(&format!("{state}.csv"), usage);
        let run = simusage(database.url(), &["ingest", "--as-new", &file]);
        assert_eq!(run.status, 0, "{run:?}");
        match state {
            0 => simusage::db::close_period(&mut connection, None)
                .await
                .unwrap(),
            _ => simusage::db::close_page(&connection).await.unwrap(),
        };
    }
    // Within a day, at a day's start, and everything of SIM card 4.
    load(
        &database,
        &files,
        &format!("{header}1,b,2020-02-01T12:00:00Z\n3,b,2020-02-03\n4,c,\n2,,2020-02-04\n"),
    );
    let large = 3 << 39;
    let run = simusage(database.url(), &["inventory", "check", "--json"]);
    let expected = json!([
        {"stored": "a", "current": "c", "sim-cards": 1, "records": 6, "bytes": 0x111_i64 + large},
        {"stored": "a", "current": "b", "sim-cards": 2, "records": 9, "bytes": 3 * 0x111},
    ]);
    assert_eq!((run.status, run.json()), (3, expected));
}
