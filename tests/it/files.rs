//! Files as they occur in practice: changed, cumulative, growing, damaged and misnamed. None may
//! lead to a wrong total with exit status 0.

use std::io::{Seek as _, Write as _};

use serde_json::Value;

use crate::support::program::{Run, command, load_inventory, simusage, simusage_with_input};
use crate::support::usage::{Files, csv, ndjson};
use crate::support::{TestDatabase, require_native_server};

/// A database with an inventory, and a folder for files.
async fn ready() -> (TestDatabase, Files) {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    (database, Files::new())
}

fn ingest(database: &TestDatabase, arguments: &[&str]) -> Run {
    simusage(database.url(), &[&["ingest", "--json"], arguments].concat())
}

/// The status of each source.
fn statuses(run: &Run) -> Vec<Value> {
    let summary = run.json();
    let sources = summary["sources"].as_array().unwrap();
    sources
        .iter()
        .map(|source| source["status"].clone())
        .collect()
}

async fn stored(database: &TestDatabase) -> i64 {
    database
        .number("select count(*) from all_usage_records")
        .await
}

#[tokio::test]
async fn a_bad_file_does_not_keep_the_others_from_being_stored() {
    let (database, files) = ready().await;
    let one = files.write("one.ndjson", ndjson(0..9));
    let missing = files.0.path().join("missing.ndjson");
    let missing = missing.to_str().unwrap();
    let header = files.write("header.csv", "sim-card-id,bytes,date\n1,2,3\n");
    let folder = files.0.path().to_str().unwrap();
    let two = files.write("two.ndjson", ndjson(10..19));
    let arguments = ["--dry-run", &one, missing, &header, folder, &two];
    for arguments in [&arguments[..], &arguments[1..]] {
        let run = ingest(&database, arguments);
        assert_eq!((run.status, run.counts()), (1, (18, 18, 0)), "{run:?}");
        let done = if arguments.len() == 6 {
            "read"
        } else {
            "stored"
        };
        assert_eq!(
            statuses(&run),
            [done, "failed", "failed", "failed", done],
            "{run:?}"
        );
        for text in [
            "missing.ndjson: No such file",
            "header.csv:1: the header has no column bytes-used",
            "it is a directory",
            "3 of 5 sources failed: ",
        ] {
            assert!(run.stderr.contains(text), "no '{text}' in {run:?}");
        }
    }
    assert_eq!(stored(&database).await, 18);
}

/// The records of [`ndjson`], with other bytes.
fn with_other_bytes(numbers: std::ops::Range<u64>) -> String {
    ndjson(numbers).replace("\"bytes-used\": ", "\"bytes-used\": 9")
}

/// Asserts that the file is refused as a copy of stored data, and that nothing of it is stored.
async fn assert_refused(database: &TestDatabase, file: &str, texts: &[&str]) {
    let before = stored(database).await;
    let run = ingest(database, &[file]);
    assert_eq!(run.status, 1, "{run:?}");
    for text in texts.iter().chain(&["--as-new"]) {
        assert!(run.stderr.contains(text), "no '{text}' in {run:?}");
    }
    assert_eq!(stored(database).await, before, "{run:?}");
}

#[tokio::test]
async fn a_changed_copy_is_refused_wherever_it_was_changed() {
    let (database, files) = ready().await;
    let text = ndjson(0..200);
    let file = files.write("usage.ndjson", &text);
    assert_eq!(ingest(&database, &[&file]).status, 3);
    let lines: Vec<&str> = text.lines().collect();
    for (number, name) in [
        (1, "usage.ndjson"),
        (4, "usage.ndjson"),
        (4, "other"),
        (200, "other"),
    ] {
        let mut changed = lines.clone();
        let line = changed[number - 1].replace("\"bytes-used\": ", "\"bytes-used\": 7");
        changed[number - 1] = &line;
        let file = files.write(name, changed.join("\n") + "\n");
        let difference = format!("line {number} is the first that differs");
        assert_refused(
            &database,
            &file,
            &["records are stored already (from ", &difference],
        )
        .await;
    }
    for (name, content) in [
        (
            "inserted",
            [
                lines[..3].join("\n"),
                "\n# note\n".into(),
                lines[3..].join("\n"),
            ]
            .concat(),
        ),
        ("removed", lines[5..].join("\n") + "\n"),
        (
            "reversed",
            lines.iter().rev().copied().collect::<Vec<_>>().join("\n") + "\n",
        ),
        ("prepended", ndjson(300..450) + &text),
        ("second-half", lines[100..].join("\n") + "\n"),
        (
            "much-is-new",
            with_other_bytes(0..150) + &lines[150..].join("\n") + "\n" + &ndjson(200..210),
        ),
        (
            "usage.ndjson",
            with_other_bytes(0..150) + &lines[150..].join("\n") + "\n",
        ),
    ] {
        let file = files.write(name, content);
        if name == "much-is-new" {
            // 50 of 210 records are the same, under another name.
            assert_eq!(ingest(&database, &["--dry-run", &file]).status, 3);
            continue;
        }
        assert_refused(&database, &file, &["records are stored already (from "]).await;
    }
    database.assert_has_exactly(200).await;
}

#[tokio::test]
async fn a_copy_with_other_line_ends_or_a_byte_order_mark_is_already_ingested() {
    for format in [ndjson, csv] {
        let (database, files) = ready().await;
        let text = format(0..9);
        assert_eq!(ingest(&database, &[&files.write("usage", &text)]).status, 0);
        for copy in [
            text.replace('\n', "\r\n"),
            format!("\u{feff}{text}"),
            text.trim_end().to_owned(),
        ] {
            let run = ingest(&database, &[&files.write("copy", &copy)]);
            assert_eq!(
                (run.status, statuses(&run)),
                (0, vec!["already-ingested".into()]),
                "{run:?}"
            );
        }
        // Grown and converted at the same time, the stored part cannot be passed over.
        let grown = format!("\u{feff}{}", format(0..12));
        let run = ingest(&database, &[&files.write("usage", grown)]);
        assert_eq!(run.status, 1, "{run:?}");
        assert!(
            run.stderr
                .contains("the change must be in its line endings or byte order mark"),
            "{run:?}"
        );
        assert_eq!(
            ingest(&database, &[&files.write("usage", format(0..12))]).status,
            3
        );
        database.assert_has_exactly(12).await;
    }
}

#[tokio::test]
async fn files_with_the_same_beginning_are_different_files() {
    let (database, files) = ready().await;
    // Longer than 4,096 bytes.
    let columns: String = (0..400).fold(String::new(), |text, column| {
        format!("{text},column-{column}")
    });
    let wide = |numbers: std::ops::Range<u64>| {
        let text = csv(numbers);
        let (header, records) = text.split_once('\n').unwrap();
        let more = ",".repeat(400);
        records
            .lines()
            .fold(format!("{header}{columns}\n"), |text, line| {
                format!("{text}{line}{more}\n")
            })
    };
    let preamble =
        |numbers| "# a long preamble, which is not a record\n".repeat(200) + &ndjson(numbers);
    for (count, contents) in [
        (18, [wide(0..9), wide(10..19)]),
        (36, [preamble(20..29), preamble(30..39)]),
        // Equal records in different files are different records, also if one file has no others.
        (41, [ndjson(50..53) + &ndjson(100..101), ndjson(52..53)]),
        (
            45,
            [
                ndjson(60..61) + &ndjson(62..63),
                ndjson(63..64) + &ndjson(62..63),
            ],
        ),
        (
            50,
            [
                ndjson(70..71) + &ndjson(60..61),
                ndjson(61..62) + &ndjson(51..53),
            ],
        ),
    ] {
        for (name, content) in ["one", "two"].into_iter().zip(contents) {
            let file = files.write(&format!("{name}-{count}"), content);
            let run = ingest(
                &database,
                &[
                    "--format",
                    if count == 18 { "csv" } else { "ndjson" },
                    &file,
                ],
            );
            assert!([0, 3].contains(&run.status), "{run:?}");
        }
        assert_eq!(stored(&database).await, count);
    }
}

#[tokio::test]
async fn all_versions_of_a_cumulative_export_are_accepted_in_any_order() {
    for order in [[1, 2, 3, 4], [4, 3, 2, 1], [2, 4, 1, 3]] {
        let (database, files) = ready().await;
        let file =
            |version: u64| files.write(&format!("export-{version}.csv"), csv(0..version * 40 + 1));
        for given in 1..=4 {
            let files: Vec<String> = order[..given]
                .iter()
                .map(|&version| file(version))
                .collect();
            let mut arguments: Vec<&str> = files.iter().map(String::as_str).collect();
            // As a cron job does, and each file more than once.
            for _ in 0..2 {
                let run = ingest(&database, &arguments);
                assert!([0, 3].contains(&run.status), "{run:?}");
                let largest = order[..given].iter().max().unwrap();
                database.assert_has_exactly(largest * 40 + 1).await;
                arguments.reverse();
            }
        }
    }
}

#[tokio::test]
async fn a_long_file_is_compared_to_its_end() {
    let (database, files) = ready().await;
    let text = ndjson(0..70_003);
    let lines: Vec<&str> = text.lines().collect();
    let write = |name: &str, lines: &[&str]| files.write(name, lines.join("\n") + "\n");
    let run = ingest(&database, &[&write("whole", &lines)]);
    assert_eq!(run.status, 3, "{run:?}");
    // The hash of each of the first 16,384 lines is kept, and of all lines so far after every 64th up to
    // line 131,072.
    for count in [70_003, 69_952, 16_384, 16_383, 300] {
        let run = ingest(&database, &[&write("prefix", &lines[..count])]);
        assert_eq!(statuses(&run), ["already-ingested"], "{run:?}");
    }
    let file = write("prefix", &lines[..69_953]);
    assert_refused(
        &database,
        &file,
        &["all of its lines except the last 1 are stored already"],
    )
    .await;
    let mut changed = lines.clone();
    changed[69_000] = lines[0];
    let file = write("changed", &changed);
    assert_refused(
        &database,
        &file,
        &["the first line that differs is between 68993 and 69056"],
    )
    .await;
    for part in [30_000..70_003, 50_000..51_000, 69_000..70_003] {
        let file = write("part", &lines[part]);
        assert_refused(&database, &file, &["about "]).await;
    }
    // The same once more, after the stored lines.
    let file = write("doubled", &[&lines[..], &lines[..]].concat());
    assert_refused(&database, &file, &[" of its 70003 new records are stored"]).await;
}

#[tokio::test]
async fn files_put_together_from_stored_ones_are_refused() {
    let (database, files) = ready().await;
    for (name, numbers) in [("january", 0..50), ("february", 50..90)] {
        assert_eq!(
            ingest(&database, &[&files.write(name, ndjson(numbers))]).status,
            3
        );
    }
    let all = files.write("all", ndjson(0..100));
    assert_refused(
        &database,
        &all,
        &[" of its 50 new records are stored already (from "],
    )
    .await;
    database.assert_has_exactly(90).await;

    // A stored file twice.
    let twice = files.write("twice", ndjson(0..50).repeat(2));
    let text = " of its 50 new records are stored already (from ";
    assert_refused(&database, &twice, &[text]).await;
    // Every piece of a stored file with at least two records.
    let january = ndjson(0..50);
    let lines: Vec<&str> = january.lines().collect();
    for (number, piece) in lines[..32].chunks(2).enumerate().skip(1) {
        let file = files.write(&format!("piece-{number}"), piece.join("\n") + "\n");
        assert_refused(&database, &file, &["2 of its 2 records are stored already"]).await;
    }
    // Many files, of which each has too few records to be recognised.
    for number in 45..70 {
        let file = files.write("small", ndjson(number * 2..number * 2 + 2));
        assert_ne!(ingest(&database, &[&file]).status, 1);
    }
    let collected = files.write("collected", ndjson(103..140));
    let text = "37 of its 37 records are stored already (from several files, such as ";
    assert_refused(&database, &collected, &[text]).await;
    database.assert_has_exactly(140).await;
}

/// An inventory of the SIM cards 1 and 2.
fn load_two_sim_cards(database: &TestDatabase, files: &Files) {
    let inventory = files.write("inventory.csv", "sim-card-id,org-id\n1,a\n2,a\n");
    let run = ingest(database, &["--inventory", &inventory]);
    assert_eq!(run.status, 0, "{run:?}");
}

#[tokio::test]
async fn files_are_already_ingested_only_if_every_line_is_the_same() {
    let (database, files) = ready().await;
    load_two_sim_cards(&database, &files);
    // 16 bits of the hashes that were used first are the same.
    let records = [
        r#"{"sim-card-id":"1","bytes-used":100,"date":"2026-05-01T00:00:00Z"}"#,
        r#"{"sim-card-id":"2","bytes-used":225327,"date":"2026-05-01T00:01:00Z"}"#,
    ];
    for (record, count) in records.into_iter().zip(1..) {
        let file = files.write("latest.ndjson", format!("{record}\n"));
        let run = ingest(&database, &[&file]);
        assert_eq!((run.status, statuses(&run)), (0, vec!["stored".into()]));
        assert_eq!(stored(&database).await, count);
    }
}

#[tokio::test]
async fn equal_records_are_counted_exactly() {
    let (database, files) = ready().await;
    let text = ndjson(0..200);
    let write = |name: &str, text: &str| files.write(name, text);
    assert_eq!(ingest(&database, &[&write("usage", &text)]).status, 3);
    let lines: Vec<&str> = text.lines().collect();
    let correct = |number: usize| {
        let mut lines = lines.clone();
        let line = lines[number - 1].replace("\"bytes-used\": ", "\"bytes-used\": 7");
        lines[number - 1] = &line;
        lines.join("\n") + "\n"
    };
    for number in [4, 100, 200] {
        let file = write("corrected", &correct(number));
        let text = "199 of its 200 records are stored already (from ";
        assert_refused(&database, &file, &[text]).await;
    }
    // Exactly half of the records.
    let half = with_other_bytes(0..100) + &lines[100..].join("\n") + "\n";
    assert_refused(&database, &write("half", &half), &["100 of its 200"]).await;
    database.assert_has_exactly(200).await;
}

#[tokio::test]
async fn repeated_records_count_as_often_as_they_occur() {
    let (database, files) = ready().await;
    let thrice: String = ndjson(0..60)
        .lines()
        .map(|line| format!("{line}\n").repeat(3))
        .collect();
    let file = files.write("tri", &thrice);
    assert_eq!(ingest(&database, &[&file]).status, 3);
    let corrected = thrice.replacen("\"bytes-used\": 2,", "\"bytes-used\": 92,", 1);
    let file = files.write("tri2", corrected);
    assert_refused(&database, &file, &["179 of its 180 records"]).await;
}

#[tokio::test]
async fn headers_preambles_and_comments_are_no_records() {
    let (database, files) = ready().await;
    let other_csv = csv(90..91).replace("date,sim-card-id,bytes-used\n", "");
    for (format, preamble, text, other, records) in [
        (
            "ndjson",
            "# comment\n",
            ndjson(300..350),
            ndjson(90..91),
            50,
        ),
        ("csv", "", csv(400..404), other_csv, 4),
    ] {
        let preamble = preamble.repeat(60);
        let file = files.write("original", preamble.clone() + &text);
        assert_ne!(ingest(&database, &["--format", format, &file]).status, 1);
        let (first, _) = text.trim_end().rsplit_once('\n').unwrap();
        let file = files.write("copy", format!("{preamble}{first}\n{other}"));
        let run = ingest(&database, &["--format", format, &file]);
        assert_eq!(run.status, 1, "{run:?}");
        let text = format!(": {} of its {records} records are", records - 1);
        assert!(run.stderr.contains(&text), "{run:?}");
    }
}

#[tokio::test]
async fn the_path_of_a_file_may_be_written_differently() {
    let (database, files) = ready().await;
    let file = files.write("two.csv", csv(0..2));
    assert_eq!(ingest(&database, &[&file]).status, 0);
    files.write(
        "two.csv",
        csv(0..1) + &csv(5..6).replace("date,sim-card-id,bytes-used\n", ""),
    );
    let folder = files.0.path();
    let link = folder.join("link.csv");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    for path in ["two.csv", "./two.csv", &file, link.to_str().unwrap()] {
        let run = command(database.url(), &["ingest", path])
            .current_dir(folder)
            .output()
            .unwrap();
        let run = Run::from(run);
        assert_eq!(run.status, 1, "{run:?}");
        assert!(run.stderr.contains("1 of its 2 records"), "{run:?}");
    }
    assert_eq!(stored(&database).await, 2);
}

#[tokio::test]
async fn a_file_is_the_same_with_another_maximum_length_of_records() {
    let (database, files) = ready().await;
    let long = |filler: usize| {
        let note = "x".repeat(filler);
        ndjson(20..21).replace('}', &format!(", \"note\": \"{note}\"}}"))
    };
    for (number, filler) in [3_000, 300_000].into_iter().enumerate() {
        let start = number as u64 * 50;
        let text = ndjson(start..start + 5) + &long(filler) + &ndjson(start + 10..start + 15);
        let file = files.write(&format!("usage-{number}"), text);
        let run_with = |limit: &str| -> Run {
            command(database.url(), &["ingest", "--json", &file])
                .env("SIMUSAGE_INGEST_MAX_RECORD_BYTES", limit)
                .output()
                .unwrap()
                .into()
        };
        assert_eq!(run_with("1024").counts(), (11, 10, 1));
        for limit in ["1024", "2048", "400000"] {
            let run = run_with(limit);
            assert_eq!(
                (run.status, statuses(&run)),
                (3, vec!["already-ingested".into()]),
                "{run:?}"
            );
        }
    }
}

#[tokio::test]
async fn an_older_copy_that_is_cut_in_a_line_is_already_ingested() {
    for (format, cut) in [(ndjson as fn(_) -> _, 40), (csv, 3)] {
        let (database, files) = ready().await;
        let text = format(0..8);
        let file = files.write("usage", &text);
        assert_eq!(ingest(&database, &[&file]).status, 0);
        let older = &text[..format(0..7).len() - cut];
        let file = files.write("older", older);
        let run = ingest(&database, &[&file]);
        assert_eq!(
            (run.status, statuses(&run)),
            (0, vec!["already-ingested".into()]),
            "{run:?}"
        );
        // As a complete file, it has another record, or something that is none.
        let run = ingest(&database, &["--complete", &file]);
        assert_eq!(run.status, 1, "{run:?}");
        database.assert_has_exactly(8).await;
    }
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_ingested_is_not_mixed() {
    let (database, files) = ready().await;
    let text = ndjson(0..40_000);
    let file = files.write("live.ndjson", &text);
    let mut command = command(database.url(), &["ingest", "--json", &file]);
    let running = command
        .env("SIMUSAGE_INGEST_BATCH_ROWS", "100")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let query = "select count(*) from all_usage_records";
    let timeout = std::time::Duration::from_mins(1);
    database.until_at_least(query, 1, timeout).await;
    // Another version of the second half, in place.
    let half = text.len() / 2;
    let mut writer = std::fs::File::options().write(true).open(&file).unwrap();
    let changed = text[half..].replace("\"bytes-used\": ", "\"bytes-used\":9");
    writer.seek(std::io::SeekFrom::Start(half as u64)).unwrap();
    writer.write_all(changed.as_bytes()).unwrap();
    let run = Run::from(running.wait_with_output().unwrap());
    assert_eq!(run.status, 1, "{run:?}");
    for text in ["live.ndjson at byte ", "its content has changed since"] {
        assert!(run.stderr.contains(text), "no '{text}' in {run:?}");
    }
    let of_second_half = "select count(*) from all_usage_records where bytes >= 90000";
    assert_eq!(database.number(of_second_half).await, 0);
    // Once the content is back, the rest is stored.
    files.write("live.ndjson", &text);
    assert_eq!(ingest(&database, &[&file]).status, 3);
    database.assert_has_exactly(40_000).await;
}

#[tokio::test]
#[ignore = "needs a native TimescaleDB"]
async fn a_file_that_another_process_is_ingesting_is_compared() {
    require_native_server();
    let (database, files) = ready().await;
    let text = ndjson(0..200);
    let original = files.write("original", &text);
    let copy = files.write(
        "copy",
        text.replace("\"bytes-used\": 4,", "\"bytes-used\": 40,"),
    );
    let beginning = files.write("beginning", ndjson(0..100));
    let other = files.write("other", ndjson(300..310));
    let start = || {
        let mut command = command(database.url(), &["ingest", "--json", &original]);
        let running = command
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        running.spawn().unwrap()
    };
    let claims = "select count(*) from pg_locks where locktype = 'advisory' \
         and classid::bigint >= 2147483648 and granted \
         and database = (select oid from pg_database where datname = current_database())";
    let timeout = std::time::Duration::from_mins(1);
    for is_killed in [true, false] {
        // Keeps the process from storing its first batch.
        let blocking = database.connect().await;
        blocking
            .batch_execute("begin; lock table usage_records_recent, rejected_records in share mode")
            .await
            .unwrap();
        let mut running = start();
        database.until_at_least(claims, 1, timeout).await;
        for file in [&copy, &beginning] {
            let run = ingest(&database, &[file]);
            assert_eq!((run.status, stored(&database).await), (1, 0), "{run:?}");
            let text = "another process is ingesting a file that has the same records (";
            assert!(run.stderr.contains(text), "{run:?}");
            assert!(
                run.stderr
                    .contains("original); run again when it has ended")
            );
        }
        if is_killed {
            running.kill().unwrap();
        }
        blocking.batch_execute("rollback").await.unwrap();
        let run = Run::from(running.wait_with_output().unwrap());
        if is_killed {
            let query = format!("select (({claims}) = 0)::int::bigint");
            database.until_at_least(&query, 1, timeout).await;
        } else {
            assert_eq!((run.status, run.counts().0), (3, 200), "{run:?}");
        }
    }
    assert_refused(&database, &copy, &["199 of its 200 records are stored"]).await;
    let run = ingest(&database, &[&beginning, &other]);
    assert_eq!(statuses(&run), ["already-ingested", "stored"], "{run:?}");
    assert_eq!(stored(&database).await, 180 + 9);
}

#[tokio::test]
#[ignore = "needs a native TimescaleDB"]
async fn cumulative_exports_at_the_same_time_are_stored_once() {
    require_native_server();
    let (database, files) = ready().await;
    let exports =
        [100, 200, 300].map(|count| files.write(&format!("export-{count}"), ndjson(0..count)));
    for round in 0..4 {
        let running = exports.each_ref().map(|file| {
            let mut command = command(database.url(), &["ingest", "--json", file]);
            let command = command
                .env("SIMUSAGE_INGEST_BATCH_ROWS", "20")
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped());
            command.spawn().unwrap()
        });
        for child in running {
            let run = Run::from(child.wait_with_output().unwrap());
            let gave_way = run.status == 1 && run.stderr.contains("another process is ingesting");
            assert!(gave_way || [0, 3].contains(&run.status), "{round}: {run:?}");
        }
        let distinct = "select count(distinct time) from all_usage_records";
        assert_eq!(stored(&database).await, database.number(distinct).await);
    }
    for file in &exports {
        let run = ingest(&database, &[file]);
        assert!([0, 3].contains(&run.status), "{run:?}");
    }
    database.assert_has_exactly(300).await;
}

#[tokio::test]
async fn as_new_stores_a_similar_file_once() {
    let (database, files) = ready().await;
    let one = files.write("one", ndjson(0..9));
    assert_eq!(ingest(&database, &[&one]).status, 0);
    let two = files.write("two", ndjson(1..9));
    assert_refused(
        &database,
        &two,
        &["two: 8 of its 8 records are stored already (from "],
    )
    .await;
    for expected in ["stored", "already-ingested"] {
        let run = ingest(&database, &["--as-new", &two]);
        assert_eq!(
            (run.status, statuses(&run)),
            (0, vec![expected.into()]),
            "{run:?}"
        );
        assert_eq!(stored(&database).await, 17);
    }
    // A file that is stored itself is never stored again.
    for file in [&one, &two] {
        let run = ingest(&database, &["--as-new", file]);
        assert_eq!(statuses(&run), ["already-ingested"], "{run:?}");
    }
    assert_eq!(
        simusage(database.url(), &["ingest", "--as-new", "--dry-run", &one]).status,
        2
    );
}

#[tokio::test]
async fn a_number_that_the_next_byte_could_change_is_not_stored() {
    let (database, files) = ready().await;
    let start = "date,sim-card-id,bytes-used\n2020-02-01T00:00:00Z,89440001,500\n2020-02-01T00:00:01Z,89440001,10";
    let total = crate::support::usage::SHOWN_BYTES;
    let file = files.write("grow.csv", start);
    for _ in 0..2 {
        let run = ingest(&database, &[&file]);
        assert_eq!(
            (run.status, run.json()["sources"][0]["rejected"].clone()),
            (3, 1.into()),
            "{run:?}"
        );
        assert!(
            run.stderr.contains("grow.csv:3: unfinished-line: ")
                && run.stderr.contains("--complete"),
            "{run:?}"
        );
        assert_eq!(database.number(total).await, 500);
    }
    // Replaying does not store it either.
    simusage(database.url(), &["ingest", "--replay-rejects"]);
    assert_eq!(database.number(total).await, 500);
    files.write("grow.csv", format!("{start}24\n"));
    let run = ingest(&database, &[&file]);
    assert_eq!((run.status, run.counts()), (0, (1, 1, 0)), "{run:?}");
    assert_eq!(database.number(total).await, 1_524);
    assert_eq!(
        database
            .number("select count(*) from rejected_records")
            .await,
        0
    );

    // The name of a SIM card may continue, too.
    let file = files.write(
        "card.csv",
        "date,bytes-used,sim-card-id\n2020-02-01T00:00:00Z,1,89440001",
    );
    assert_eq!(ingest(&database, &[&file]).status, 3);
    assert_eq!(database.number(total).await, 1_524);
    // A complete file needs no line end.
    for expected in ["stored", "already-ingested"] {
        let run = ingest(&database, &["--complete", &file]);
        assert_eq!(
            (run.status, statuses(&run)),
            (0, vec![expected.into()]),
            "{run:?}"
        );
        assert_eq!(database.number(total).await, 1_525);
    }
}

#[tokio::test]
async fn a_json_object_needs_no_line_end() {
    let (database, files) = ready().await;
    let object = ndjson(0..2);
    let run = ingest(&database, &[&files.write("a", object.trim_end())]);
    assert_eq!((run.status, run.counts().2), (0, 0), "{run:?}");
    let run = simusage_with_input(database.url(), &["ingest", "-"], object.trim_end());
    assert_eq!(run.status, 0, "{run:?}");
    assert_eq!(stored(&database).await, 4);
    // A line that ends in the middle of a record is read again.
    let file = files.write("cut.ndjson", &ndjson(100..101)[..50]);
    assert_eq!(ingest(&database, &[&file]).status, 3);
    files.write("cut.ndjson", ndjson(100..105));
    let run = ingest(&database, &[&file]);
    assert_eq!((run.status, run.counts()), (0, (5, 5, 0)), "{run:?}");
    assert_eq!(
        database
            .number("select count(*) from rejected_records")
            .await,
        0
    );
}

/// gzip, or zstd with a checksum.
fn compress(content: &str, zstd: bool) -> Vec<u8> {
    if zstd {
        let mut encoder = zstd::stream::write::Encoder::new(vec![], 1).unwrap();
        encoder.include_checksum(true).unwrap();
        encoder.write_all(content.as_bytes()).unwrap();
        return encoder.finish().unwrap();
    }
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::none());
    encoder.write_all(content.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn zstd_without_a_checksum_is_stored_with_a_warning() {
    let (database, files) = ready().await;
    let content = zstd::stream::encode_all(ndjson(0..9).as_bytes(), 1).unwrap();
    let warning = "it has zstd data without a checksum";
    let file = files.write("usage.ndjson.zst", [&content[..], &content].concat());
    let run = ingest(&database, &[&file]);
    assert_eq!((run.status, run.counts().1), (0, 18), "{run:?}");
    let named = format!("{file}: {warning}");
    assert_eq!(run.stderr.matches(&named).count(), 1, "{run:?}");
    let piped = command(database.url(), &["ingest", "--source-id", "meter", "-"])
        .stdin(std::fs::File::open(&file).unwrap())
        .output()
        .unwrap();
    let piped = Run::from(piped);
    assert_eq!(piped.stderr.matches(warning).count(), 1, "{piped:?}");
    let checked = files.write("checked.ndjson.zst", compress(&ndjson(10..19), true));
    let run = ingest(&database, &[&checked]);
    assert!(!run.stderr.contains("checksum"), "{run:?}");
}

#[tokio::test]
async fn nothing_of_a_damaged_compressed_file_is_stored() {
    for zstd in [false, true] {
        let (database, files) = ready().await;
        let intact = compress(&ndjson(0..200), zstd);
        // Each time in another record, and once in the checksum.
        for at in [intact.len() / 3, intact.len() / 2, intact.len() - 2] {
            let mut damaged = intact.clone();
            damaged[at] ^= 1;
            let file = files.write("usage", &damaged);
            let run = ingest(&database, &[&file]);
            assert_eq!(run.status, 1, "{run:?}");
            assert!(run.stderr.contains("at byte 0 (decompressed)"), "{run:?}");
            let piped = command(database.url(), &["ingest", "-"])
                .stdin(std::fs::File::open(&file).unwrap())
                .output()
                .unwrap();
            assert_eq!(Run::from(piped).status, 1);
            assert_eq!(stored(&database).await, 0);
        }
        // The members before the damaged one are intact.
        let mut members = [
            compress(&ndjson(0..100), zstd),
            compress(&ndjson(100..200), zstd),
        ]
        .concat();
        let last = members.len() - 2;
        members[last] ^= 1;
        let file = files.write("usage", &members);
        let run = ingest(&database, &[&file]);
        assert_eq!(run.status, 1, "{run:?}");
        database.assert_has_exactly(100).await;
        files.write("usage", [intact, vec![0; 1_024]].concat());
        let run = ingest(&database, &[&file]);
        assert_eq!(
            (run.status, statuses(&run)),
            (3, vec!["continued".into()]),
            "{run:?}"
        );
        database.assert_has_exactly(200).await;
    }
}

#[tokio::test]
async fn a_pipe_given_as_a_file_is_read_like_one() {
    let (database, files) = ready().await;
    let file = files.write("usage.gz", compress(&ndjson(0..100), false));
    let program = env!("CARGO_BIN_EXE_simusage");
    for status in [3, 3] {
        let script = format!("'{program}' ingest <(cat '{file}')");
        let run: Run = std::process::Command::new("bash")
            .args(["-c", &script])
            .env("DATABASE_URL", database.url())
            .output()
            .unwrap()
            .into();
        assert_eq!(run.status, status, "{run:?}");
        database.assert_has_exactly(100).await;
    }
}

#[tokio::test]
async fn a_file_of_which_every_record_was_rejected_is_read_again() {
    let (database, files) = ready().await;
    let file = files.write("usage.ndjson", csv(0..9));
    // As NDJSON, nine records and the header are malformed.
    for _ in 0..2 {
        let run = ingest(&database, &[&file]);
        assert_eq!((run.status, run.counts()), (3, (10, 0, 10)), "{run:?}");
        assert_eq!(
            database
                .number("select count(*) from rejected_records")
                .await,
            10
        );
    }
    let run = ingest(&database, &["--format", "csv", &file]);
    assert_eq!((run.status, run.counts()), (0, (9, 9, 0)), "{run:?}");
    assert_eq!(
        database
            .number("select count(*) from rejected_records")
            .await,
        0
    );
    let run = ingest(&database, &[&file]);
    assert_eq!(
        (run.status, statuses(&run)),
        (0, vec!["already-ingested".into()]),
        "{run:?}"
    );
    database.assert_has_exactly(9).await;
}

#[tokio::test]
async fn the_ledger_knows_which_records_are_still_rejected() {
    let (database, files) = ready().await;
    let file = files.write("usage.ndjson", ndjson(0..20));
    assert_eq!(ingest(&database, &[&file]).status, 3);
    let counts = |run: &Run| {
        let source = &run.json()["sources"][0];
        (
            source["stored"].as_u64().unwrap(),
            source["rejected"].as_u64().unwrap(),
        )
    };
    let run = ingest(&database, &[&file]);
    assert_eq!((run.status, counts(&run)), (3, (18, 2)), "{run:?}");
    let inventory = files.write("inventory.csv", "sim-card-id,org-id\n89440099,a01b7\n");
    let run = ingest(&database, &["--inventory", &inventory, "--replay-rejects"]);
    assert_eq!((run.status, run.counts()), (0, (2, 2, 0)), "{run:?}");
    let run = ingest(&database, &[&file]);
    assert_eq!((run.status, counts(&run)), (0, (20, 0)), "{run:?}");
    assert_eq!(stored(&database).await, 20);
}

#[tokio::test]
async fn json_that_is_not_one_object_per_line_is_refused() {
    let (database, files) = ready().await;
    let text = ndjson(0..9);
    let lines: Vec<&str> = text.lines().collect();
    let pretty = text
        .replace('{', "{\n  ")
        .replace(", ", ",\n  ")
        .replace('}', "\n}");
    for (content, problem) in [
        (format!("[{}]\n", lines.join(",\n")), "this is a JSON array"),
        (
            format!("[\n{}\n]\n", lines.join(",\n")),
            "this is a JSON array",
        ),
        (format!("[{}]", lines.join(", ")), "this is a JSON array"),
        (lines.join(",\n"), "this is a JSON array"),
        (pretty.clone(), "this JSON value spans several lines"),
        (
            format!("{text}{pretty}"),
            "this JSON value spans several lines",
        ),
        (
            format!("{{\"records\": [\n{}\n]}}\n", lines.join(",\n")),
            "this JSON value spans several lines",
        ),
    ] {
        for arguments in [&["--dry-run"][..], &[]] {
            let file = files.write("usage.json", &content);
            let run = ingest(&database, &[arguments, &[&file]].concat());
            assert_eq!(run.status, 1, "{run:?}");
            assert!(
                run.stderr.contains(problem)
                    && run.stderr.contains("jq -c")
                    && run
                        .stderr
                        .contains("FILE | simusage ingest --source-id NAME -"),
                "{run:?}"
            );
        }
        if !content.starts_with(lines[0]) || content.starts_with(&format!("{},", lines[0])) {
            let run = simusage_with_input(database.url(), &["ingest", "-"], &content);
            assert_eq!(run.status, 1, "{run:?}");
            assert!(run.stderr.contains(problem), "{run:?}");
        }
    }
    let rows =
        "select (select count(*) from all_usage_records) + (select count(*) from rejected_records)";
    assert_eq!(database.number(rows).await, 0);
    assert_eq!(
        ingest(&database, &[&files.write("usage.json", &text)]).status,
        0
    );
    database.assert_has_exactly(9).await;
}

#[tokio::test]
async fn arrays_and_zero_are_not_mistaken() {
    let (database, files) = ready().await;
    let date = "2020-02-01T12:00:00Z";
    let text = format!(
        "{{\"sim-card-id\":\"89440001\",\"bytes-used\":-0,\"date\":\"{date}\"}}\n\
         [\"89440001\",5,\"{date}\"]\n\
         {{\"sim-card-id\":\"89440001\",\"bytes-used\":\"-0\",\"date\":\"{date}\"}}\n"
    );
    let run = ingest(&database, &[&files.write("usage.ndjson", text)]);
    assert_eq!((run.status, run.counts()), (3, (3, 2, 1)), "{run:?}");
    assert_eq!(run.json()["reasons"]["malformed"], 1);
    let sum = crate::support::usage::SHOWN_BYTES;
    assert_eq!(database.number(sum).await, 0);
}
