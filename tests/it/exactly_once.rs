//! Every record is stored or rejected once, even if a file is renamed, compressed or appended to,
//! or the program crashes.

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;

use crate::support::program::{Run, command, load_inventory, simusage, simusage_with_input};
use crate::support::usage::{Files, csv, ndjson, rejected_among_first};
use crate::support::{TestDatabase, UNREACHABLE, require_native_server};

/// A database with an inventory, and a folder for files.
async fn ready() -> (TestDatabase, Files) {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    (database, Files::new())
}

/// Ingests with small batches.
fn ingest(database: &TestDatabase, arguments: &[&str]) -> Run {
    let arguments = [&["ingest", "--json"], arguments].concat();
    let mut command = command(database.url(), &arguments);
    command
        .env("SIMUSAGE_INGEST_BATCH_ROWS", "20")
        .stdin(Stdio::null())
        .output()
        .unwrap()
        .into()
}

fn status(run: &Run) -> serde_json::Value {
    run.json()["sources"][0]["status"].clone()
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_stored_file_is_recognised_after_renaming() {
    let (database, files) = ready().await;
    let file = files.write("usage.ndjson", ndjson(0..100));
    let run = ingest(&database, &[&file]);
    assert_eq!((run.status, run.counts()), (3, (100, 90, 10)), "{run:?}");
    let size = ndjson(0..100).len();
    assert_eq!(
        run.json()["sources"],
        json!([{
            "name": file, "status": "stored", "from": 0, "to": size, "stored": 90, "rejected": 10
        }])
    );
    let other = files.write("copy.of", ndjson(0..100));
    for file in [&file, &other] {
        let run = ingest(&database, &[file]);
        assert_eq!((run.status, run.counts()), (3, (0, 0, 0)), "{run:?}");
        assert_eq!(status(&run), "already-ingested");
    }
    let run = simusage(database.url(), &["ingest", &other]);
    assert!(
        run.stdout.contains(
            "copy.of: already ingested; 10 of its 100 records were rejected, see rejected_records\n"
        ),
        "{run:?}"
    );
    let twice = ingest(&database, &[&other, &file]);
    assert_eq!((twice.status, twice.counts()), (3, (0, 0, 0)), "{twice:?}");
    database.assert_has_exactly(100).await;
}

#[tokio::test]
async fn a_file_that_grew_is_resumed_after_the_last_stored_record() {
    for format in [ndjson, csv] {
        let (database, files) = ready().await;
        // At first shorter than the head that identifies a file.
        for count in [3, 15, 100, 101, 250] {
            let file = files.write(&format!("usage-{count}"), format(0..count));
            let run = ingest(&database, &[&file]);
            assert!([0, 3].contains(&run.status), "{run:?}");
            assert_eq!(
                status(&run),
                if count == 3 { "stored" } else { "continued" }
            );
            database.assert_has_exactly(count).await;
        }
        let rows = database.connect().await;
        let lines = "select line from rejected_records order by id";
        let lines: Vec<i64> = rows
            .query(lines, &[])
            .await
            .unwrap()
            .iter()
            .map(|row| row.get(0))
            .collect();
        let header = i64::from(!format(0..0).is_empty());
        assert_eq!(
            lines,
            (1..=25).map(|ten| ten * 10 + header).collect::<Vec<_>>()
        );
        assert_eq!(
            database.number("select count(*) from ingest_sources").await,
            1
        );
        assert_eq!(
            database
                .number("select stored + rejected from ingest_sources")
                .await,
            250
        );
    }
}

#[tokio::test]
async fn a_file_whose_ingested_part_changed_is_refused_with_a_reason() {
    let (database, files) = ready().await;
    let before = ndjson(0..200);
    let file = files.write("usage.ndjson", &before);
    assert_eq!(ingest(&database, &[&file]).status, 3);
    let at = before.len() - 100;
    let changed = [
        &before[..at],
        &before[at..].replacen("bytes-used\": 2", "bytes-used\": 3", 1),
        &ndjson(200..210),
    ];
    assert_ne!(changed[1], &before[at..]);
    files.write("usage.ndjson", changed.concat());
    let run = ingest(&database, &[&file]);
    assert_eq!(run.status, 1, "{run:?}");
    let reason = [
        &format!(" of its 210 records are stored already (from {file}, "),
        "; line 200 is the first that differs. The stored records would count twice. Write only the \
         missing records to a separate file",
    ];
    assert!(
        reason.iter().all(|text| run.stderr.contains(text)),
        "{run:?}"
    );
    files.write("usage.ndjson", &before[..before.len() / 2]);
    // Nothing is missing, unless the line at which the file is cut is meant to be complete.
    assert_eq!(ingest(&database, &[&file]).status, 3);
    let run = ingest(&database, &["--complete", &file]);
    assert_eq!(run.status, 1, "{run:?}");
    assert!(
        run.stderr.contains("; line 101 is the first that differs"),
        "{run:?}"
    );
    database.assert_has_exactly(200).await;
}

#[tokio::test]
async fn a_rotated_file_is_resumed_under_its_new_name_and_its_successor_is_a_new_file() {
    let (database, files) = ready().await;
    let log = files.write("usage.log", ndjson(0..60));
    assert_eq!(ingest(&database, &[&log]).status, 3);
    let rotated = files.write("usage.log.1", ndjson(0..80));
    files.write("usage.log", ndjson(80..150));
    let run = ingest(&database, &[&log, &rotated]);
    assert_eq!((run.status, run.counts()), (3, (90, 81, 9)), "{run:?}");
    database.assert_has_exactly(150).await;
}

#[tokio::test]
async fn a_file_with_only_a_header_does_not_block_other_files() {
    let (database, files) = ready().await;
    let one = files.write("one.csv", csv(0..0));
    let run = ingest(&database, &[&one]);
    assert_eq!((run.status, run.counts()), (0, (0, 0, 0)), "{run:?}");
    let two = files.write("two.csv", csv(50..100));
    assert_eq!(ingest(&database, &[&two]).status, 3);
    files.write("one.csv", csv(0..50));
    assert_eq!(ingest(&database, &[&one]).status, 3);
    database.assert_has_exactly(100).await;
}

#[tokio::test]
async fn plain_and_compressed_copies_are_the_same_source() {
    let (database, files) = ready().await;
    let (some, more, all) = (csv(0..100), csv(0..150), csv(0..200));
    let members = [
        gzip(&more.as_bytes()[..5_000]),
        gzip(&more.as_bytes()[5_000..]),
    ]
    .concat();
    let contents = [
        ("usage.csv", some.clone().into_bytes(), 100),
        ("usage.csv.gz", gzip(some.as_bytes()), 100),
        ("members.csv.gz", members, 150),
        (
            "usage.csv.zst",
            zstd::encode_all(more.as_bytes(), 3).unwrap(),
            150,
        ),
        (
            "no-name-tells",
            zstd::encode_all(all.as_bytes(), 19).unwrap(),
            200,
        ),
    ];
    for (name, content, count) in contents {
        let run = ingest(&database, &[&files.write(name, content)]);
        assert!([0, 3].contains(&run.status), "{name}: {run:?}");
        database.assert_has_exactly(count).await;
    }
    let run = command(database.url(), &["ingest", "--json", "-"])
        .stdin(
            std::fs::File::open(files.write("other.gz", gzip(csv(200..300).as_bytes()))).unwrap(),
        )
        .output()
        .unwrap();
    assert_eq!(Run::from(run).counts(), (100, 90, 10));
    database.assert_has_exactly(300).await;
}

#[tokio::test]
async fn a_truncated_gzip_file_is_stored_up_to_its_last_complete_member() {
    let (database, files) = ready().await;
    let content = ndjson(0..3_000);
    let (first, second) = content.as_bytes().split_at(40_000);
    let (first, second) = (gzip(first), gzip(second));
    let whole = [first.as_slice(), &second].concat();
    let file = files.write("usage.gz", &whole[..first.len() + second.len() / 2]);
    let run = ingest(&database, &[&file]);
    assert_eq!(run.status, 1, "{run:?}");
    assert!(
        run.stderr
            .contains(&format!("reading {file} at byte 40000 (decompressed)")),
        "{run:?}"
    );
    let lines = database
        .number("select stored + rejected from ingest_sources")
        .await;
    assert!(lines > 100, "{lines}");
    database
        .assert_has_exactly(u64::try_from(lines).unwrap())
        .await;
    files.write("usage.gz", whole);
    let run = ingest(&database, &[&file]);
    assert_eq!(
        (run.status, status(&run)),
        (3, json!("continued")),
        "{run:?}"
    );
    database.assert_has_exactly(3_000).await;
}

#[tokio::test]
async fn an_unterminated_last_line_is_read_again_unless_it_was_stored() {
    let (database, files) = ready().await;
    let text = ndjson(0..31);
    let whole = text.trim_end();
    // Cut within a record: rejected at first, and read again in the next run.
    let file = files.write("usage.ndjson", &whole[..whole.len() - 20]);
    for _ in 0..2 {
        let run = ingest(&database, &[&file]);
        assert_eq!(run.status, 3, "{run:?}");
        assert_eq!(
            database
                .number("select count(*) from rejected_records where line = 31")
                .await,
            1
        );
        assert_eq!(
            database
                .number("select stored + rejected from ingest_sources")
                .await,
            31
        );
    }
    files.write("usage.ndjson", whole);
    let run = ingest(&database, &[&file]);
    assert_eq!((run.status, run.counts()), (3, (1, 1, 0)), "{run:?}");
    database.assert_has_exactly(31).await;
    assert_eq!(status(&ingest(&database, &[&file])), "already-ingested");
    // The line is terminated, and more follow.
    files.write("usage.ndjson", ndjson(0..40));
    assert_eq!(ingest(&database, &[&file]).status, 3);
    database.assert_has_exactly(40).await;
    assert_eq!(
        database
            .number("select max(line) from rejected_records")
            .await,
        40
    );

    // A stored line is longer now.
    let stored = files.write("other.ndjson", ndjson(200..205).trim_end());
    assert_eq!(ingest(&database, &[&stored]).status, 0);
    files.write(
        "other.ndjson",
        format!("{} \n", ndjson(200..205).trim_end()),
    );
    let run = ingest(&database, &[&stored]);
    assert_eq!(run.status, 1, "{run:?}");
    assert!(
        run.stderr
            .contains("line 5, which had no line ending when it was ingested"),
        "{run:?}"
    );
}

#[tokio::test]
async fn a_named_stream_resumes_after_the_last_stored_record() {
    let (database, _) = ready().await;
    let arguments = ["ingest", "--json", "--source-id", "meter", "-"];
    for count in [40, 40, 100] {
        let run = simusage_with_input(database.url(), &arguments, &ndjson(0..count));
        assert!([0, 3].contains(&run.status), "{run:?}");
        database.assert_has_exactly(count).await;
    }
    let run = simusage_with_input(database.url(), &arguments, &ndjson(100..110));
    assert_eq!(run.status, 1, "{run:?}");
    assert!(
        run.stderr.contains("replay the stream from its beginning"),
        "{run:?}"
    );
    // Without a name, equal records count as different ones.
    assert_eq!(
        simusage_with_input(database.url(), &["ingest", "-"], &ndjson(0..3)).status,
        0
    );
    assert_eq!(
        database
            .number("select count(*) from all_usage_records")
            .await,
        93
    );
    // Only the row that marks the end of a run is kept for the unnamed stream.
    assert_eq!(
        database
            .number("select count(*) from ingest_sources where identity <> 'ended'")
            .await,
        1
    );
}

#[test]
fn a_source_id_is_accepted_only_for_standard_input() {
    for files in [&["usage.ndjson"][..], &["-", "usage.ndjson"], &[]] {
        let arguments = [
            &["ingest", "--source-id", "x", "--inventory", "i.json"],
            files,
        ]
        .concat();
        assert_eq!(simusage(UNREACHABLE, &arguments).status, 2, "{files:?}");
    }
    assert_eq!(
        simusage(UNREACHABLE, &["ingest", "--replay-rejects", "usage.ndjson"]).status,
        2
    );
}

#[tokio::test]
async fn the_run_after_too_many_rejects_resumes_after_them() {
    let (database, files) = ready().await;
    let file = files.write("usage.ndjson", ndjson(0..100));
    for count in [40, 80] {
        let run = ingest(&database, &["--max-rejects", "3", &file]);
        assert_eq!(run.status, 1, "{run:?}");
        assert!(
            run.stderr.contains(&format!("stopped at {file}:{count}")),
            "{run:?}"
        );
        database.assert_has_exactly(count).await;
    }
    assert_eq!(ingest(&database, &["--max-rejects", "3", &file]).status, 3);
    database.assert_has_exactly(100).await;
}

#[cfg(debug_assertions)]
#[tokio::test]
async fn the_run_after_a_crash_at_any_point_stores_the_missing_records() {
    for point in [
        "before-begin",
        "after-copy",
        "after-rejects",
        "before-commit",
        "after-commit",
        "before-refresh",
        "after-refresh",
    ] {
        let (database, files) = ready().await;
        let file = files.write("usage.ndjson", ndjson(0..100));
        let times = if point.ends_with("refresh") { "1" } else { "3" };
        let died = command(database.url(), &["ingest", &file])
            .env("SIMUSAGE_INGEST_BATCH_ROWS", "20")
            .env("SIMUSAGE_FAILPOINT", format!("{point}:{times}"))
            .output()
            .unwrap();
        assert_eq!(died.status.code(), None, "{point}: {died:?}");
        let run = ingest(&database, &[&file]);
        assert!([0, 3].contains(&run.status), "{point}: {run:?}");
        database.assert_has_exactly(100).await;
        assert_eq!(status(&ingest(&database, &[&file])), "already-ingested");
    }
}

#[tokio::test]
async fn kills_at_random_moments_lose_and_duplicate_nothing() {
    let rounds = std::env::var("SIMUSAGE_TEST_KILLS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(12);
    let (database, files) = ready().await;
    // Enough records for the last kill to interrupt an ingest.
    let count = rounds * 400;
    let file = files.write("usage.ndjson", ndjson(0..count));
    let mut killed = 0;
    let mut round = 0;
    while round < rounds {
        let mut child = command(database.url(), &["ingest", &file])
            .env("SIMUSAGE_INGEST_BATCH_ROWS", "10")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(random_millis(round)));
        child.kill().unwrap();
        killed += u32::from(child.wait().unwrap().code().is_none());
        let lines = database
            .number("select coalesce(max(stored + rejected), 0)::bigint from ingest_sources")
            .await;
        let rows = "select (select count(*) from all_usage_records) + (select count(*) from rejected_records)";
        assert_eq!(database.number(rows).await, lines);
        round += 1;
    }
    assert!(killed > 0);
    let run = ingest(&database, &[&file]);
    println!(
        "{killed} kills, after which {} of {count} records were left",
        run.counts().0
    );
    assert!([0, 3].contains(&run.status), "{run:?}");
    database.assert_has_exactly(count).await;
}

/// A pause that differs between rounds.
fn random_millis(round: u64) -> u64 {
    let nanos = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .subsec_nanos();
    20 + (u64::from(nanos) / 1_000 + round * 37) % 180
}

#[tokio::test]
#[ignore = "needs a native TimescaleDB"]
async fn two_processes_with_the_same_file_store_it_once() {
    require_native_server();
    let (database, files) = ready().await;
    let file = files.write("usage.ndjson", ndjson(0..3_000));
    let children: Vec<_> = (0..2)
        .map(|_| {
            command(database.url(), &["ingest", "--json", &file])
                .env("SIMUSAGE_INGEST_BATCH_ROWS", "50")
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let runs: Vec<Run> = children
        .into_iter()
        .map(|child| child.wait_with_output().unwrap().into())
        .collect();
    for run in &runs {
        let gave_way = run.status == 1 && run.stderr.contains("another process is ingesting it");
        assert!(gave_way || [0, 3].contains(&run.status), "{run:?}");
    }
    assert!(runs.iter().any(|run| run.status != 1), "{runs:?}");
    database.assert_has_exactly(3_000).await;
    assert_eq!(rejected_among_first(3_000), 300);
}

#[tokio::test]
async fn records_of_a_slow_stream_are_visible_before_it_ends() {
    let (database, _) = ready().await;
    let mut child = command(database.url(), &["ingest", "--format", "ndjson", "-"])
        .env("SIMUSAGE_INGEST_BATCH_AGE_MS", "50")
        .env("SIMUSAGE_INGEST_PAGE_MS", "100")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for count in 1..=3 {
        stdin
            .write_all(ndjson(count - 1..count).as_bytes())
            .unwrap();
        let shown = crate::support::usage::SHOWN_RECORDS;
        database
            .until_at_least(
                shown,
                i64::try_from(count).unwrap(),
                Duration::from_secs(10),
            )
            .await;
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
    database.assert_has_exactly(3).await;
}
