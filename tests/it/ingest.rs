//! `simusage ingest`: stored records, rejected records, and the summary of both.

use std::fmt::Write as _;

use simusage::db;

use crate::support::program::{
    Run, command, inventory, load_inventory, simusage, simusage_with_input,
};
use crate::support::usage::{self, Files, SHOWN_BYTES, SHOWN_RECORDS};
use crate::support::{TestDatabase, UNREACHABLE, require_native_server};

fn ndjson(records: &[(&str, i64, &str)]) -> String {
    records
        .iter()
        .fold(String::new(), |mut text, (sim_card, bytes, date)| {
            writeln!(
                text,
                r#"{{"sim-card-id": "{sim_card}", "bytes-used": "{bytes}", "date": "{date}"}}"#
            )
            .unwrap();
            text
        })
}

/// What organizations used by `hour` or `day`, as `organization bucket bytes records`, in order.
/// Closes all periods, and checks that nothing changes.
async fn buckets(database: &TestDatabase, width: &str) -> Vec<String> {
    database.assert_answers_match().await;
    let query = format!(
        "select concat_ws(' ', name, to_char(date_trunc('{width}', slot), 'YYYY-MM-DD HH24:MI'), sum(bytes), sum(records)) \
         from organization_usage join organizations as o on o.id = organization_id \
         group by name, date_trunc('{width}', slot) order by name, date_trunc('{width}', slot)"
    );
    database
        .connect()
        .await
        .query(&query, &[])
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect()
}

#[tokio::test]
async fn rejected_records_are_deleted_by_age() {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    let files = Files::new();
    let connection = database.connect().await;
    let count = "select count(*) from rejected_records";
    let add = "insert into rejected_records (rejected_at, source, position, line, reason, detail, raw, version)
               select now() - make_interval(days => days), 'x', 0, 1, 'malformed', '', '', ''
               from generate_series(1, 100) as days, generate_series(1, 1001)";
    connection.batch_execute(add).await.unwrap();
    let ingest = |days: &str, arguments: &[&str], number: u64| {
        let file = files.write("usage.ndjson", usage::ndjson(0..number));
        let mut command = command(database.url(), &[&["ingest", "-"], arguments].concat());
        let input = std::fs::File::open(file).unwrap();
        command
            .env("SIMUSAGE_INGEST_KEEP_REJECTED_DAYS", days)
            .stdin(input);
        Run::from(command.output().unwrap())
    };
    for (days, arguments, left) in [
        ("0", &[] as &[&str], 100_100),
        ("90", &["--dry-run"], 100_100),
        ("90", &[], 90_090 - 1_001),
        ("90", &[], 90_090 - 1_001),
        ("1", &[], 0),
    ] {
        let run = ingest(days, arguments, 1);
        assert_eq!(run.status, 0, "{run:?}");
        assert_eq!(
            database.number(count).await,
            left,
            "{days} {arguments:?} {run:?}"
        );
    }
    // Those of this ingest are kept.
    let run = ingest("1", &[], 10);
    assert_eq!(
        (run.status, database.number(count).await),
        (3, 1),
        "{run:?}"
    );
}

#[tokio::test]
async fn ingested_records_are_in_every_answer_when_the_command_returns() {
    let database = TestDatabase::migrated().await;
    let files = Files::new();
    let file = files.write(
        "usage.ndjson",
        ndjson(&[
            ("89440001", 1_000, "2020-02-01T10:00:00Z"),
            ("89440002", 200, "2020-02-01T10:59:59.999999Z"),
            ("89440001", 30, "2020-02-01T11:00:00Z"),
            ("89440006", 4, "2020-02-02T01:00:00+02:00"),
        ]),
    );
    let inventory = inventory();
    let run = simusage(
        database.url(),
        &[
            "ingest",
            "--json",
            "--inventory",
            inventory.to_str().unwrap(),
            &file,
        ],
    );
    assert_eq!(run.status, 0, "{run:?}");
    assert_eq!(run.counts(), (4, 4, 0));
    assert_eq!(run.json()["assignments"], 15);
    let hourly = [
        "a01b7 2020-02-01 10:00 1200 2",
        "a01b7 2020-02-01 11:00 30 1",
        "x00g8 2020-02-01 23:00 4 1",
    ];
    assert_eq!(buckets(&database, "hour").await, hourly);
    let daily = [
        "a01b7 2020-02-01 00:00 1230 3",
        "x00g8 2020-02-01 00:00 4 1",
    ];
    assert_eq!(buckets(&database, "day").await, daily);
    for (view, rows) in [
        ("organization_usage", 4),
        ("organization_usage_daily", 2),
        ("sim_card_usage", 3),
    ] {
        let count = format!("select count(*) from {view}");
        assert_eq!(database.number(&count).await, rows, "{view}");
    }
}

#[tokio::test]
async fn late_records_are_visible_immediately() {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    for (date, bytes) in [
        ("2022-06-01T12:00:00Z", 1),
        ("2020-02-01T12:30:00Z", 10),
        ("2020-02-01T12:45:00Z", 100),
    ] {
        let run = simusage_with_input(
            database.url(),
            &["ingest", "-"],
            &ndjson(&[("89440001", bytes, date)]),
        );
        assert_eq!(run.status, 0, "{run:?}");
        database.assert_answers_match().await;
    }
    let expected = ["a01b7 2020-02-01 00:00 110 2", "a01b7 2022-06-01 00:00 1 1"];
    assert_eq!(buckets(&database, "day").await, expected);
}

#[tokio::test]
async fn rejected_records_are_kept_with_line_and_reason() {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    let files = Files::new();
    let good = ndjson(&[("89440001", 1, "2020-02-01T10:00:00Z")]);
    let record = |sim_card: &str, bytes: &str, date: &str| {
        format!(r#"{{"sim-card-id":"{sim_card}","bytes-used":{bytes},"date":"{date}"}}"#)
    };
    let date = "2020-02-01T10:00:00Z";
    let bad = [
        ("malformed", "{\"sim-card-id\": ".to_owned()),
        ("missing-field", r#"{"bytes-used": 1}"#.to_owned()),
        (
            "invalid-sim-card",
            r#"{"sim-card-id":89440001,"bytes-used":1,"date":"2020-02-01T10:00:00Z"}"#.to_owned(),
        ),
        ("invalid-bytes", record("89440001", "\"1.5\"", date)),
        ("negative-bytes", record("89440001", "-1", date)),
        (
            "bytes-overflow",
            record("89440001", "9223372036854775808", date),
        ),
        (
            "invalid-date",
            record("89440001", "1", "2020-02-30T10:00:00Z"),
        ),
        (
            "date-out-of-range",
            record("89440001", "1", "9999-12-31T00:00:00Z"),
        ),
        ("unknown-sim-card", record("89440015", "1", date)),
        ("too-long", format!("\"{}\"", "x".repeat(100_000))),
    ];
    let mut text = good.clone();
    for (_, line) in &bad {
        text.push_str(line);
        text.push_str("\n\n");
    }
    text.push_str(&good);
    let file = files.write("usage.ndjson", &text);
    let run = simusage(database.url(), &["ingest", "--json", &file]);
    assert_eq!(run.status, 3, "{run:?}");
    assert_eq!(run.counts(), (12, 2, 10));
    let rows = database.connect().await;
    let rows = rows
        .query(
            "select source, position, line, reason, raw, detail from rejected_records order by id",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(rows.len(), bad.len());
    for (index, (row, (reason, line))) in rows.iter().zip(&bad).enumerate() {
        assert_eq!(run.json()["reasons"][reason], 1, "{reason}");
        assert_eq!(row.get::<_, &str>("reason"), *reason);
        assert_eq!(row.get::<_, &str>("source"), file);
        assert_eq!(
            row.get::<_, i64>("line"),
            2 + 2 * i64::try_from(index).unwrap()
        );
        let position = usize::try_from(row.get::<_, i64>("position")).unwrap();
        assert!(text[position..].starts_with(line.as_str()));
        let raw: &[u8] = row.get("raw");
        assert!(
            line.as_bytes().starts_with(raw) && (raw.len() == line.len() || raw.len() == 65_536)
        );
        assert!(!row.get::<_, &str>("detail").is_empty());
    }
    assert!(
        run.stderr.contains(&format!(
            "{file}:18: unknown-sim-card: sim-card-id '89440015'"
        )),
        "{run:?}"
    );
}

#[tokio::test]
async fn a_record_belongs_to_the_owner_of_its_sim_card_at_its_date() {
    let database = TestDatabase::migrated().await;
    let files = Files::new();
    let inventory = files.write(
        "inventory.csv",
        "sim-card-id,org-id,valid-from\n1,old,2020-01-01\n1,new,2020-02-01T10:30:00Z\n",
    );
    let usage = ndjson(&[
        ("1", 1, "2020-02-01T10:29:59.999999Z"),
        ("1", 20, "2020-02-01T10:30:00Z"),
        ("1", 300, "2019-12-31T23:59:59Z"),
    ]);
    let run = simusage_with_input(
        database.url(),
        &["ingest", "--json", "--inventory", &inventory, "-"],
        &usage,
    );
    assert_eq!((run.status, run.counts()), (3, (3, 2, 1)), "{run:?}");
    assert_eq!(run.json()["reasons"]["unassigned-sim-card"], 1);
    let expected = ["new 2020-02-01 10:00 20 1", "old 2020-02-01 10:00 1 1"];
    assert_eq!(buckets(&database, "hour").await, expected);

    // Reassigning the SIM card affects later records, not stored ones.
    let moved = files.write(
        "moved.csv",
        "sim-card-id,org-id,valid-from\n1,newest,2020-02-01T10:30:00Z\n",
    );
    let usage = ndjson(&[("1", 4_000, "2020-02-01T10:30:00Z")]);
    let run = simusage_with_input(
        database.url(),
        &["ingest", "--inventory", &moved, "-"],
        &usage,
    );
    assert_eq!(run.status, 0, "{run:?}");
    let expected = [
        "new 2020-02-01 10:00 20 1",
        "newest 2020-02-01 10:00 4000 1",
        "old 2020-02-01 10:00 1 1",
    ];
    assert_eq!(buckets(&database, "hour").await, expected);
}

#[tokio::test]
async fn loading_the_same_inventory_again_uses_no_sequence_numbers() {
    let database = TestDatabase::migrated().await;
    for _ in 0..3 {
        let run = simusage(
            database.url(),
            &["ingest", "--inventory", inventory().to_str().unwrap()],
        );
        assert_eq!(run.status, 0, "{run:?}");
        assert!(run.stdout.contains("inventory: 15 assignments"), "{run:?}");
    }
    assert_eq!(
        database
            .number("select count(*) from sim_card_assignments")
            .await,
        15
    );
    assert_eq!(
        database
            .number("select last_value from sim_cards_id_seq")
            .await,
        15
    );
    assert_eq!(
        database
            .number("select last_value from organizations_id_seq")
            .await,
        3
    );
}

#[tokio::test]
async fn an_invalid_inventory_is_refused_as_a_whole_and_the_error_names_the_entry() {
    let database = TestDatabase::migrated().await;
    let files = Files::new();
    let file = files.write(
        "inventory.json",
        r#"[{"sim-card-id":"1","org-id":"a"},{"sim-card-id":"2","org-id":"b c"}]"#,
    );
    let run = simusage(database.url(), &["ingest", "--inventory", &file]);
    assert_eq!(run.status, 1, "{run:?}");
    assert!(
        run.stderr
            .contains("entry 2: org-id: 'b c' is not an identifier"),
        "{run:?}"
    );
    assert_eq!(database.number("select count(*) from sim_cards").await, 0);
}

#[tokio::test]
async fn too_many_rejects_stop_the_run_after_committing_the_records_before() {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    let mut text = ndjson(&[("89440001", 1, "2020-02-01T10:00:00Z")]).repeat(5);
    text.push_str("bad\nworse\nworst\n");
    text.push_str(&ndjson(&[("89440001", 1, "2020-02-01T10:00:00Z")]));
    let run = simusage_with_input(
        database.url(),
        &["ingest", "--format", "ndjson", "--max-rejects", "1", "-"],
        &text,
    );
    assert_eq!(run.status, 1, "{run:?}");
    assert!(
        run.stderr
            .contains("stopped at stdin:7: more than 1 records were rejected"),
        "{run:?}"
    );
    assert_eq!(database.number(SHOWN_RECORDS).await, 5);
    assert_eq!(
        database
            .number("select count(*) from rejected_records")
            .await,
        2
    );
}

#[tokio::test]
async fn small_batches_store_the_same_as_one_large_batch() {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    let mut text = ndjson(&[
        ("89440001", 1, "2020-02-01T10:00:00Z"),
        ("89440015", 1, "2020-02-01T10:00:00Z"),
    ])
    .repeat(50);
    text.push_str(&ndjson(&[("89440001", 1, "2020-02-01T10:00:00Z")]));
    let files = Files::new();
    let file = files.write("usage.jsonl", text);
    let output = command(database.url(), &["ingest", "--json", &file])
        .env("SIMUSAGE_INGEST_BATCH_ROWS", "7")
        .output()
        .unwrap();
    let run = crate::support::program::Run::from(output);
    assert_eq!((run.status, run.counts()), (3, (101, 51, 50)), "{run:?}");
    assert_eq!(
        database
            .number("select count(*) from all_usage_records")
            .await,
        51
    );
    assert_eq!(
        database
            .number("select count(*) from rejected_records")
            .await,
        50
    );
}

#[tokio::test]
async fn the_error_for_a_missing_csv_column_names_it() {
    let database = TestDatabase::migrated().await;
    let files = Files::new();
    let file = files.write(
        "usage.csv",
        "sim-card-id,bytes,date\n89440001,1,2020-02-01T10:00:00Z\n",
    );
    let run = simusage(database.url(), &["ingest", &file]);
    assert_eq!(run.status, 1, "{run:?}");
    let message =
        format!("{file}:1: the header has no column bytes-used (it has: sim-card-id, bytes, date)");
    assert!(run.stderr.contains(&message), "{run:?}");
}

#[tokio::test]
async fn several_files_are_one_run() {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    let files = Files::new();
    let one = files.write(
        "one.ndjson",
        ndjson(&[("89440001", 1, "2020-02-01T10:00:00Z")]),
    );
    let two = files.write(
        "two.csv",
        "date,bytes_used,sim_card_id\r\n2020-02-01T10:00:00Z,20,89440001\r\n",
    );
    let empty = files.write("empty.csv", "");
    let run = simusage(database.url(), &["ingest", "--json", &one, &two, &empty]);
    assert_eq!((run.status, run.counts()), (0, (2, 2, 0)), "{run:?}");
    assert_eq!(database.number(SHOWN_BYTES).await, 21);
}

#[tokio::test]
async fn the_error_for_an_unmigrated_database_says_what_to_do() {
    let database = TestDatabase::empty().await;
    let run = simusage(
        database.url(),
        &["ingest", "--inventory", inventory().to_str().unwrap()],
    );
    assert_eq!(run.status, 1, "{run:?}");
    assert!(run.stderr.contains("run `simusage migrate`"), "{run:?}");
}

#[test]
fn invalid_arguments_and_settings_exit_with_2() {
    for arguments in [
        &["ingest"][..],
        &["ingest", "--format", "xml", "-"],
        &["ingests"],
        &[],
        &["migrate", "--chek"],
    ] {
        assert_eq!(simusage(UNREACHABLE, arguments).status, 2, "{arguments:?}");
    }
    let output = command(UNREACHABLE, &["migrate"])
        .env("SIMUSAGE_SERVE_POOL_SIZE", "many")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("SIMUSAGE_SERVE_POOL_SIZE: serve.pool_size: 'many' is not a whole number"),
        "{stderr}"
    );
}

#[tokio::test]
#[ignore = "needs a native TimescaleDB"]
async fn concurrent_ingests_store_and_show_every_record() {
    require_native_server();
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    let files = Files::new();
    let usage: String = (0..5_000)
        .map(|second| {
            let date = format!(
                "2020-02-{:02}T{:02}:{:02}:{:02}Z",
                1 + second % 28,
                second % 24,
                second % 60,
                second % 59
            );
            ndjson(&[("89440001", 1, &date), ("89440011", 2, &date)])
        })
        .collect();
    let file = files.write("usage.ndjson", usage);
    let children: Vec<_> = (0..4)
        .map(|_| {
            // From standard input, because a file would be stored only once.
            let input = std::fs::File::open(&file).unwrap();
            let stdout = std::process::Stdio::null();
            command(database.url(), &["ingest", "-"])
                .stdin(input)
                .stdout(stdout)
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(database.number(SHOWN_RECORDS).await, 40_000);
    assert_eq!(database.number(SHOWN_BYTES).await, 60_000);
    database.assert_answers_match().await;
}

#[tokio::test]
async fn a_large_batch_goes_to_the_columnstore_and_a_small_one_to_the_row_store() {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    let files = Files::new();
    for (range, bulk) in [(0..30_000, 27_000), (30_000..31_000, 27_000)] {
        let file = files.write(
            &format!("{}.ndjson", range.end),
            crate::support::usage::ndjson(range.clone()),
        );
        let mut ingest = command(database.url(), &["ingest", "--json", &file]);
        ingest.env("SIMUSAGE_INGEST_PERIOD_RECORDS", "1000000");
        let run = crate::support::program::Run::from(ingest.output().unwrap());
        let read = range.end - range.start;
        assert_eq!(run.counts(), (read, read - read / 10, read / 10), "{run:?}");
        let stored = "select count(*) from usage_records";
        assert_eq!(database.number(stored).await, bulk);
    }
    // Direct compress works with continuous aggregates since 2.24, and on their refresh since 2.26.
    let version = "select (string_to_array(split_part(extversion, '-', 1), '.')::int[])[2]::bigint \
                   from pg_extension where extname = 'timescaledb'";
    let minor = database.number(version).await;
    let compressed = |relation: &str| {
        format!(
            "select count(*) from timescaledb_information.chunks as c where is_compressed and \
             ((hypertable_schema, hypertable_name) in (select materialization_hypertable_schema, materialization_hypertable_name \
              from timescaledb_information.continuous_aggregates where view_name = '{relation}') \
              or hypertable_name = '{relation}')"
        )
    };
    for (relation, since) in [
        ("usage_records", 24),
        ("organization_usage", 26),
        ("organization_usage_daily", 26),
        ("sim_card_usage", 26),
    ] {
        let expected = i64::from(minor >= since);
        assert_eq!(
            database.number(&compressed(relation)).await,
            expected,
            "{relation}"
        );
    }
    database.assert_has_exactly(31_000).await;
}

#[test]
fn the_fuzz_targets_pass_on_their_corpora() {
    use simusage::ingest::fuzzing::{csv_header, csv_record, inventory, lines, ndjson_record};
    let targets = [
        ("ndjson_record", ndjson_record as fn(&[u8])),
        ("csv_record", csv_record),
        ("csv_header", csv_header),
        ("inventory", inventory),
        ("lines", lines),
    ];
    for (name, target) in targets {
        let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/corpus")
            .join(name);
        let files: Vec<_> = std::fs::read_dir(corpus)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert!(files.len() >= 3, "{name}");
        for file in files {
            target(&std::fs::read(file).unwrap());
        }
    }
}

#[tokio::test]
async fn records_of_wrong_clocks_and_with_absurd_bytes_are_rejected() {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    let hours = |hours: i64| (chrono::Utc::now() + chrono::TimeDelta::hours(hours)).to_rfc3339();
    let tebibyte = 1 << 40;
    let text = ndjson(&[
        ("89440001", 1, &hours(23)),
        ("89440001", 1, &hours(25)),
        ("89440001", 1, "2199-12-31T00:00:00Z"),
        ("89440001", tebibyte, "2020-02-01T00:00:00Z"),
        ("89440001", tebibyte + 1, "2020-02-01T00:00:00Z"),
        ("89440001", i64::MAX, "2020-02-01T00:00:00Z"),
    ]);
    let files = Files::new();
    let file = files.write("usage.ndjson", &text);
    let dry = simusage(database.url(), &["ingest", "--json", "--dry-run", &file]);
    assert_eq!((dry.status, dry.counts()), (3, (6, 2, 4)), "{dry:?}");
    let run = simusage(database.url(), &["ingest", "--json", &file]);
    assert_eq!((run.status, run.counts()), (3, (6, 2, 4)), "{run:?}");
    assert_eq!(
        run.json()["reasons"],
        serde_json::json!({"future-date": 2, "implausible-bytes": 2})
    );
    let output = command(database.url(), &["ingest", "--json", "--replay-rejects"])
        .env("SIMUSAGE_INGEST_MAX_FUTURE_HOURS", "0")
        .env(
            "SIMUSAGE_INGEST_MAX_RECORD_BYTES_USED",
            i64::MAX.to_string(),
        )
        .output();
    let replayed = Run::from(output.unwrap());
    assert_eq!(
        (replayed.status, replayed.counts()),
        (0, (4, 4, 0)),
        "{replayed:?}"
    );
}

/// A batch that has begun keeps its page open: the page closes only once the batch has committed,
/// even in two phases, or rolled back.
#[tokio::test]
#[ignore = "needs a native TimescaleDB with max_prepared_transactions"]
async fn a_page_waits_for_its_batches() {
    require_native_server();
    let database = TestDatabase::migrated().await;
    let prepared = "select current_setting('max_prepared_transactions')::bigint";
    assert!(
        database.number(prepared).await > 0,
        "set max_prepared_transactions on the test server, for example to 10"
    );
    load_inventory(database.url());
    let (writer, mut closer) = (database.connect().await, database.connect().await);
    let name = format!("of {}", database.url());
    let write = "insert into usage_records_recent (posting, time, sim_card_id, organization_id, bytes)
                     select begin_posting(), time, sim_card_id, organization_id, bytes from all_usage_records limit 1;
                 insert into posting_days (day, posting, records, is_large, is_recent)
                     select '2020-02-01', max(posting), 1, false, true from usage_records_recent";
    for (how, expected) in [("commit prepared", 2), ("rollback prepared", 3)] {
        let line = ndjson(&[("89440001", 1, "2020-02-01T00:30:00Z")]);
        let run = simusage_with_input(database.url(), &["ingest", "-"], &line);
        assert_eq!(run.status, 0, "{run:?}");
        writer
            .batch_execute(&format!("begin; {write}; prepare transaction '{name}'"))
            .await
            .unwrap();
        let mut closing = Box::pin(db::close_period(&mut closer, None));
        let waited = tokio::time::timeout(std::time::Duration::from_millis(500), &mut closing);
        assert!(waited.await.is_err(), "{how}");
        writer
            .batch_execute(&format!("{how} '{name}'"))
            .await
            .unwrap();
        closing.await.unwrap();
        database.assert_answers_match().await;
        assert_eq!(database.number(SHOWN_RECORDS).await, expected, "{how}");
    }
}

/// With another order of the columnstore, TimescaleDB takes the rows of several refreshes as one
/// sorted run, and returns several groups for a SIM card.
#[tokio::test]
async fn refreshes_into_one_chunk_have_right_sums() {
    let database = TestDatabase::migrated().await;
    let mut connection = database.connect().await;
    db::prepare_closing(&connection).await.unwrap();
    for period in 0..4 {
        let post = format!(
            "insert into usage_records_recent (posting, time, sim_card_id, organization_id, bytes)
                 select begin.posting, timestamptz '2026-11-01 00:00+00' + interval '{period} days', i, 1 + i % 7, i
                 from (select begin_posting() as posting) as begin, generate_series(1, 5000) as i;
             insert into posting_days (day, posting, records, is_large, is_recent)
                 select '2026-11-01', max(posting), 5000, false, true from usage_records_recent"
        );
        connection
            .batch_execute(&format!("begin; {post}; commit"))
            .await
            .unwrap();
        db::close_period(&mut connection, None).await.unwrap();
    }
    connection
        .batch_execute("set enable_hashagg = off")
        .await
        .unwrap();
    for (view, column, groups) in [
        ("sim_card_usage", "sim_card_id", 5_000),
        ("organization_usage", "organization_id", 7),
        ("organization_usage_daily", "organization_id", 7),
    ] {
        let query = format!(
            "select count(*), sum(bytes)::bigint from (select {column}, sum(bytes) as bytes from {view} group by 1) as g"
        );
        let row = connection.query_one(&query, &[]).await.unwrap();
        assert_eq!(
            (row.get::<_, i64>(0), row.get::<_, i64>(1)),
            (groups, 4 * 5_000 * 5_001 / 2),
            "{view}"
        );
    }
}
