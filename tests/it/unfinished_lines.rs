//! CSV that ends within a line: nothing of that line is stored, wherever it comes from, because more may
//! follow.

use crate::support::TestDatabase;
use crate::support::program::{load_inventory, simusage, simusage_with_input};
use crate::support::usage::{Files, SHOWN_BYTES};

/// Headers; a line of each that is a valid record, with its bytes; and how the file may continue, with the
/// bytes of the whole.
const GROWING: [(&str, &str, i64, &str, i64); 4] = [
    (
        "date,sim-card-id,bytes-used",
        "2020-02-01T00:00:00Z,89440001,10",
        10,
        "24\n",
        1_024,
    ),
    (
        "date,bytes-used,sim-card-id",
        "2020-02-01T00:00:00Z,500,89440001",
        500,
        "\n",
        500,
    ),
    (
        "sim-card-id,bytes-used,date",
        "89440001,7,2020-02-01T00:00:00Z",
        7,
        "\r\n89440001,8,2020-02-01T00:00:00Z\r\n",
        15,
    ),
    (
        "sim-card-id,bytes-used,date,session",
        "89440001,9,2020-02-01T00:00:00Z,session-cl",
        9,
        "osed\n89440001,200,2020-02-01T00:00:00Z,\n",
        209,
    ),
];

const REJECTED: &str = "select count(*) from rejected_records";

#[tokio::test]
async fn a_csv_line_without_its_end_is_unfinished_in_every_source() {
    for (header, line, _, rest, bytes) in GROWING {
        let (database, files) = (TestDatabase::migrated().await, Files::new());
        let url = database.url();
        load_inventory(url);
        let cut = format!("{header}\n{line}");
        let whole = format!("{cut}{rest}");
        let file = files.write("log.csv", &cut);
        let from_file = ["ingest", "--json", &file];
        let named = ["ingest", "--json", "--source-id", "meter", "-"];
        for _ in 0..2 {
            for run in [
                simusage(url, &from_file),
                simusage_with_input(url, &named, &cut),
            ] {
                assert_eq!((run.status, run.counts().1), (3, 0), "{header}: {run:?}");
                assert!(
                    run.stderr.contains(":2: unfinished-line: ")
                        && run.stderr.contains("pass --complete"),
                    "{run:?}"
                );
            }
        }
        assert_eq!(database.number(REJECTED).await, 2, "{header}");
        // What continues it belongs to the line.
        files.write("log.csv", &whole);
        for run in [
            simusage(url, &from_file),
            simusage_with_input(url, &named, &whole),
        ] {
            assert_eq!((run.status, run.counts().2), (0, 0), "{header}: {run:?}");
        }
        assert_eq!(database.number(REJECTED).await, 0, "{header}");
        let total = database.number(SHOWN_BYTES).await;
        assert_eq!(total, 2 * bytes, "{header}");
        for run in [
            simusage(url, &from_file),
            simusage_with_input(url, &named, &whole),
        ] {
            assert_eq!((run.status, run.counts().1), (0, 0), "{header}: {run:?}");
        }
    }
}

#[tokio::test]
async fn a_stream_without_a_name_may_have_been_cut_within_a_csv_line() {
    let database = TestDatabase::migrated().await;
    let url = database.url();
    load_inventory(url);
    for (header, line, bytes, _, _) in GROWING {
        let cut = format!("{header}\n{line}");
        let before = database.number(SHOWN_BYTES).await;
        for arguments in [
            &["ingest", "--json", "-"][..],
            &["ingest", "--dry-run", "--json", "-"],
        ] {
            let run = simusage_with_input(url, arguments, &cut);
            assert_eq!((run.status, run.counts().1), (3, 0), "{header}: {run:?}");
            assert!(
                run.stderr.contains(":2: unfinished-line: ")
                    && run.stderr.contains("send only this line again"),
                "{run:?}"
            );
        }
        // A replay cannot know either.
        let run = simusage(url, &["ingest", "--replay-rejects"]);
        assert_eq!(run.status, 0, "{run:?}");
        assert_eq!(database.number(SHOWN_BYTES).await, before, "{header}");
        let run = simusage_with_input(url, &["ingest", "--json", "--complete", "-"], &cut);
        assert_eq!((run.status, run.counts().2), (0, 0), "{header}: {run:?}");
        assert_eq!(database.number(SHOWN_BYTES).await, before + bytes);
    }
    let unfinished = "select count(*) from rejected_records where reason = 'unfinished-line'";
    assert_eq!(database.number(unfinished).await, 4);
}

#[tokio::test]
async fn an_inventory_that_ends_within_a_line_is_not_loaded() {
    let (database, files) = (TestDatabase::migrated().await, Files::new());
    let url = database.url();
    let whole = files.write("whole.csv", "sim-card-id,org-id\n1,acme\n2,acme\n");
    assert_eq!(simusage(url, &["ingest", "--inventory", &whole]).status, 0);
    let moved = "select count(*) from sim_card_assignments join organizations on organizations.id = organization_id \
                 where name <> 'acme'";
    let cut = files.write("cut.csv", "sim-card-id,org-id\n1,acme\n2,ac");
    for arguments in [
        &["ingest", "--inventory", &cut][..],
        &["ingest", "--inventory", &cut, "--replace-inventory"],
        &["ingest", "--inventory", &cut, "--dry-run", &cut],
    ] {
        let run = simusage(url, arguments);
        assert_eq!(run.status, 1, "{run:?}");
        assert!(
            run.stderr
                .contains("cut.csv: line 3: the last line has no line ending"),
            "{run:?}"
        );
        assert_eq!(database.number(moved).await, 0);
    }
    let run = simusage(url, &["ingest", "--complete", "--inventory", &cut]);
    assert_eq!(run.status, 0, "{run:?}");
    assert_eq!(database.number(moved).await, 1);
}

#[tokio::test]
async fn a_blank_line_may_continue_after_its_carriage_return() {
    let (database, files) = (TestDatabase::migrated().await, Files::new());
    load_inventory(database.url());
    let start = "sim-card-id,bytes-used,date\n89440001,1,2020-02-01T00:00:00Z\n\r";
    for (content, counts) in [
        (start.to_owned(), (1, 1, 0)),
        (start.to_owned(), (0, 0, 0)),
        (format!("{start}8"), (1, 0, 1)),
        (
            format!("{start}\n89440001,2,2020-02-01T00:00:00Z\n"),
            (1, 1, 0),
        ),
    ] {
        let file = files.write("log.csv", &content);
        let run = simusage(database.url(), &["ingest", "--json", &file]);
        let status = if counts.2 > 0 { 3 } else { 0 };
        assert_eq!(
            (run.status, run.counts()),
            (status, counts),
            "{content:?}: {run:?}"
        );
    }
    assert_eq!(database.number(SHOWN_BYTES).await, 3);
}
