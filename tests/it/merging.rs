//! Spans of 32 periods, whose rows of SIM cards and days are merged.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use simusage::db;

use crate::support::TestDatabase;
use crate::support::api::Api;
use crate::support::program::{command, load_inventory};
use crate::support::usage::NEXT_SPAN;

/// Two SIM cards of an organization, and days of a month.
const SIM_CARDS: [&str; 2] = ["89440001", "89440002"];

/// Stores and closes periods, each with a record of 1 byte of each SIM card for each of three days.
async fn store_periods(database: &TestDatabase, count: usize) {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let mut connection = database.connect().await;
    for _ in 0..count {
        // Two equal files would be one source.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let lines: Vec<_> = ["2020-02-01", "2020-02-02", "2020-02-29"]
            .into_iter()
            .flat_map(|day| SIM_CARDS.map(|sim_card| (day, sim_card)))
            .map(|(day, sim_card)| format!("{sim_card},1,{day}T12:00:00.{number:06}Z\n"))
            .collect();
        let lines = lines.concat();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(format!("{number}.csv"));
        std::fs::write(&file, format!("sim-card-id,bytes-used,date\n{lines}")).unwrap();
        let run = command(database.url(), &["ingest"])
            .arg(file)
            .output()
            .unwrap();
        assert!(run.status.success(), "{run:?}");
        db::close_period(&mut connection, None).await.unwrap();
    }
}

/// The span of the next period, which then follows on a whole one.
async fn end_span(database: &TestDatabase) {
    database
        .connect()
        .await
        .batch_execute(NEXT_SPAN)
        .await
        .unwrap();
    store_periods(database, 1).await;
}

/// The answers that read the days of SIM cards, and records at the edges of days.
async fn answers(api: &Api) -> Vec<Value> {
    let paths = [
        "/api/v1/simcard/89440001/usage?start=2020-02-01&end=2020-02-29&every=1day",
        "/api/v1/simcard/89440001/usage?start=2020-02-01&end=2020-02-29&every=1day&tz=Asia/Kathmandu",
        "/api/v1/usage/simcards?start=2020-02-01&end=2020-02-29",
        "/api/v1/usage/simcards?start=2020-02-02&end=2020-02-02",
        "/api/v1/usage/simcards?start=2020-02-01&end=2020-02-29&tz=Europe/Berlin",
        "/api/v1/usage/simcards?organization=a01b7&sort=id",
        "/api/v1/usage/organizations?start=2020-02-01&end=2020-02-29",
    ];
    let mut answers = vec![];
    for path in paths {
        let answer = api.ok(path).await;
        answers.push(answer["items"].clone());
    }
    answers
}

#[actix_web::test]
async fn merged_spans_answer_as_their_periods_did() {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    let api = Api::new(&database.config()).await;
    store_periods(&database, 5).await;
    end_span(&database).await;
    let before = answers(&api).await;
    assert_eq!(before[0][0]["bytes-used-total"], 6);
    let connection = database.connect().await;
    assert!(db::merge_span(&connection).await.unwrap());
    // The second span is not over.
    assert!(!db::merge_span(&connection).await.unwrap());
    let merged = "select count(*) from sim_card_usage_merged";
    assert_eq!(database.number(merged).await, 6);
    // A new process, whose cache is empty.
    let api = Api::new(&database.config()).await;
    assert_eq!(answers(&api).await, before);
    let differences = db::inventory_differences(&connection).await.unwrap();
    assert!(differences.is_empty(), "{differences:?}");

    // The periods are dropped a minute later.
    let of_span = "select count(*) from sim_card_usage where period < 1::bigint << 45";
    db::drop_old(&connection).await.unwrap();
    assert_eq!(database.number(of_span).await, 5 * 6);
    let earlier = "update sim_card_spans set decided_at = decided_at - interval '2 minutes'";
    connection.batch_execute(earlier).await.unwrap();
    db::drop_old(&connection).await.unwrap();
    assert_eq!(database.number(of_span).await, 0);
    let api = Api::new(&database.config()).await;
    assert_eq!(answers(&api).await, before);

    // Later records of the same days add up.
    store_periods(&database, 2).await;
    end_span(&database).await;
    let between = answers(&api).await;
    assert_eq!(between[0][0]["bytes-used-total"], 9);
    assert!(db::merge_span(&connection).await.unwrap());
    assert_eq!(database.number(merged).await, 12);
    let api = Api::new(&database.config()).await;
    assert_eq!(answers(&api).await, between);
}

#[actix_web::test]
async fn spans_whose_periods_have_different_days_stay_as_they_are() {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    store_periods(&database, 1).await;
    end_span(&database).await;
    let connection = database.connect().await;
    assert!(!db::merge_span(&connection).await.unwrap());
    let spans = "select count(*) from sim_card_spans where not is_merged";
    assert_eq!(database.number(spans).await, 1);
    let merged = "select count(*) from sim_card_usage_merged";
    assert_eq!(database.number(merged).await, 0);
    database.assert_answers_match().await;
}

#[actix_web::test]
async fn sums_of_a_span_that_exceed_64_bits_stay_in_their_periods() {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    store_periods(&database, 3).await;
    end_span(&database).await;
    let connection = database.connect().await;
    // No test can store 2^25 records of 2^37 bytes for each period.
    let table: String = connection
        .query_one(
            "select format('%I.%I', materialization_hypertable_schema, materialization_hypertable_name) \
             from timescaledb_information.continuous_aggregates where view_name = 'sim_card_usage'",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    let large = format!("update {table} set bytes = 1::bigint << 62");
    connection.batch_execute(&large).await.unwrap();
    assert!(!db::merge_span(&connection).await.unwrap());
    let spans = "select count(*) from sim_card_spans where not is_merged";
    assert_eq!(database.number(spans).await, 1);
    let list = "select sum(bytes) = 24 * (1::numeric * (1::bigint << 62)) from \
                sim_card_list(null, '{}', '{2020-02-01, 2020-03-01}', 0, null, null, 10, 0)";
    let row = connection.query_one(list, &[]).await.unwrap();
    assert!(row.get::<_, bool>(0));
}

#[tokio::test]
async fn an_ingest_merges_and_finishes_what_a_killed_one_began() {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    store_periods(&database, 4).await;
    let connection = database.connect().await;
    connection.batch_execute(NEXT_SPAN).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("last.csv");
    let record = "sim-card-id,bytes-used,date\n89440001,1,2020-02-01T13:00:00Z\n";
    std::fs::write(&file, record).unwrap();
    let mut killed = command(database.url(), &["ingest"]);
    killed
        .env("SIMUSAGE_INGEST_PERIOD_RECORDS", "1")
        .env("SIMUSAGE_FAILPOINT", "before-deciding-span")
        .arg(&file);
    assert!(!killed.output().unwrap().status.success());
    let merged = "select count(*) from sim_card_spans where is_merged";
    assert_eq!(database.number(merged).await, 0);
    database.assert_answers_match().await;
    let repeated = command(database.url(), &["ingest"]).arg(&file).output();
    assert!(repeated.unwrap().status.success());
    assert_eq!(database.number(merged).await, 1);
    let sum = "select sum(bytes)::bigint from sim_card_usage_merged";
    assert_eq!(database.number(sum).await, 4 * 6);
    let list = "select sum(bytes)::bigint from \
                sim_card_list(null, '{}', '{2020-02-01, 2020-03-01}', 0, null, null, 10, 0)";
    assert_eq!(database.number(list).await, 4 * 6 + 1);
}
