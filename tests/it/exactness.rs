//! Ingests random records with the built program, reads every bucket through the real router, and
//! compares them with sums computed here.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use proptest::prelude::*;
use proptest::test_runner::{Config as PropertyConfig, TestCaseError, TestRunner};
use serde_json::Value;

use crate::support::TestDatabase;
use crate::support::api::Api;
use crate::support::program::{command, simusage, simusage_with_input};
use crate::support::usage::Files;

/// 2020-02-01T00:00:00Z.
const START: i64 = 1_580_515_200;

/// A record, and the organization that owns its SIM card at that time.
#[derive(Debug, Clone)]
struct Record {
    sim_card: String,
    organization: String,
    bytes: i64,
    time: i64,
}

impl Record {
    fn date(&self) -> String {
        text(self.time)
    }
}

fn text(time: i64) -> String {
    DateTime::from_timestamp(time, 0)
        .unwrap()
        .to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

fn ndjson(records: &[Record]) -> String {
    records.iter().enumerate().fold(String::new(), |mut text, (index, record)| {
        // Bytes can be a string or a number.
        let quote = if index % 3 == 0 { "" } else { "\"" };
        let Record { sim_card, bytes, .. } = record;
        let date = record.date();
        writeln!(text, r#"{{"date": "{date}", "bytes-used": {quote}{bytes}{quote}, "sim-card-id": "{sim_card}"}}"#)
            .unwrap();
        text
    })
}

fn csv(records: &[Record]) -> String {
    let header = "sim_card_id,date,bytes_used\r\n".to_owned();
    records.iter().fold(header, |mut text, record| {
        write!(
            text,
            "{},{},{}\r\n",
            record.sim_card,
            record.date(),
            record.bytes
        )
        .unwrap();
        text
    })
}

/// (bytes, records) by date.
type Series = BTreeMap<String, (i64, i64)>;

fn expected(records: &[Record], is_included: impl Fn(&Record) -> bool, width: i64) -> Series {
    let mut series = Series::new();
    for record in records.iter().filter(|record| is_included(record)) {
        let bucket = series
            .entry(text(record.time - record.time % width))
            .or_default();
        bucket.0 += record.bytes;
        bucket.1 += 1;
    }
    series
}

/// Reads every page of a series.
async fn fetch_series(api: &Api, resource: &str, every: &str) -> Series {
    let mut series = Series::new();
    let mut page = 1;
    loop {
        let path = format!(
            "/api/v1/{resource}/usage?start=2019-01-01&end=2021-12-31&every={every}&size=1000&page={page}"
        );
        let body = api.ok(&path).await;
        let items = body["items"].as_array().unwrap();
        for item in items {
            let number = |name: &str| item[name].as_i64().unwrap();
            let date = item["date"].as_str().unwrap().to_owned();
            let duplicate = series.insert(date, (number("bytes-used-total"), number("records")));
            assert_eq!(duplicate, None, "{path} repeats {item}");
        }
        if body["next"] == Value::Null {
            assert_eq!(body["total"], series.len(), "{path}");
            assert_eq!(
                body["bytes-used-total"],
                series.values().map(|bucket| bucket.0).sum::<i64>(),
                "{path}"
            );
            return series;
        }
        page += 1;
    }
}

/// Compares every bucket of every organization and SIM card, and returns their number.
async fn compare(api: &Api, records: &[Record]) -> usize {
    let mut buckets = 0;
    for (every, width) in [("1hour", 3_600), ("1day", 86_400)] {
        let organizations: BTreeSet<_> =
            records.iter().map(|record| &record.organization).collect();
        for id in organizations {
            let series = fetch_series(api, &format!("organization/{id}"), every).await;
            assert_eq!(
                series,
                expected(records, |record| record.organization == *id, width),
                "{id} {every}"
            );
            buckets += series.len();
        }
        let sim_cards: BTreeSet<_> = records.iter().map(|record| &record.sim_card).collect();
        for id in sim_cards {
            let series = fetch_series(api, &format!("simcard/{id}"), every).await;
            assert_eq!(
                series,
                expected(records, |record| record.sim_card == *id, width),
                "{id} {every}"
            );
            buckets += series.len();
        }
    }
    buckets
}

/// The organization (0 to 2) of a SIM card (0 to 9). The odd ones move after ten days.
fn owner(sim_card: usize, time: i64) -> usize {
    let moved = sim_card % 2 == 1 && time >= START + 10 * 86_400;
    (sim_card + usize::from(moved)) % 3
}

fn inventory(prefix: &str) -> String {
    (0..10).fold(
        "sim-card-id,org-id,valid-from\n".to_owned(),
        |mut text, sim_card| {
            writeln!(
                text,
                "{prefix}{sim_card},{prefix}org{},",
                owner(sim_card, START)
            )
            .unwrap();
            let moved = START + 10 * 86_400;
            writeln!(
                text,
                "{prefix}{sim_card},{prefix}org{},{}",
                owner(sim_card, moved),
                self::text(moved)
            )
            .unwrap();
            text
        },
    )
}

fn record(prefix: &str, (sim_card, bytes, offset): (usize, i64, i64)) -> Record {
    let time = START + offset;
    Record {
        sim_card: format!("{prefix}{sim_card}"),
        organization: format!("{prefix}org{}", owner(sim_card, time)),
        bytes,
        time,
    }
}

#[actix_web::test]
async fn forty_thousand_random_records_are_summed_exactly() {
    let database = TestDatabase::migrated().await;
    let files = Files::new();
    let mut random = fastrand::Rng::with_seed(40_000);
    let records: Vec<Record> = (0..40_000)
        .map(|_| {
            record(
                "89440",
                (
                    random.usize(..10),
                    random.i64(0..2_000_000_000_000),
                    random.i64(0..28 * 86_400),
                ),
            )
        })
        .collect();
    let inventory = files.write("inventory.csv", inventory("89440"));
    let (first, rest) = records.split_at(15_000);
    let (second, third) = rest.split_at(15_000);
    // The records are larger than plausible ones.
    let settings = "[ingest]\nmax_record_bytes_used = 9_223_372_036_854_775_807\n";
    let settings = files.write("config.toml", settings);
    let runs = [
        simusage(
            database.url(),
            &[
                "--config",
                &settings,
                "ingest",
                "--json",
                "--inventory",
                &inventory,
                &files.write("one.ndjson", ndjson(first)),
            ],
        ),
        simusage(
            database.url(),
            &[
                "--config",
                &settings,
                "ingest",
                "--json",
                &files.write("two.csv", csv(second)),
            ],
        ),
        simusage_with_input(
            database.url(),
            &["--config", &settings, "ingest", "--json", "-"],
            &ndjson(third),
        ),
    ];
    for (run, count) in runs.iter().zip([15_000, 15_000, 10_000]) {
        assert_eq!(
            (run.status, run.counts()),
            (0, (count, count, 0)),
            "{run:?}"
        );
    }
    let api = Api::new(&database.config()).await;
    let buckets = compare(&api, &records).await;
    assert!(buckets > 7_000, "only {buckets} buckets were compared");
}

#[test]
fn any_records_in_any_batches_are_summed_exactly() {
    let record = (
        0_usize..10,
        prop_oneof![0_i64..100, 0_i64..1_000_000_000_000_000],
        -40 * 86_400_i64..60 * 86_400,
    );
    let records = proptest::collection::vec(record, 1..120);
    // Two ingests in sequence, so that some records of the second are late.
    let strategy = (records.clone(), records, 1_u64..50, any::<bool>());
    let runtime = actix_web::rt::System::new();
    let database = runtime.block_on(TestDatabase::migrated());
    let api = runtime.block_on(Api::new(&database.config()));
    let case = Cell::new(0);
    let mut runner = TestRunner::new(PropertyConfig {
        cases: 12,
        failure_persistence: None,
        ..PropertyConfig::default()
    });
    let result = runner.run(&strategy, |(first, second, batch_rows, as_csv)| {
        // Each case has separate SIM cards, so that cases do not affect each other.
        case.set(case.get() + 1);
        let prefix = format!("case{}-", case.get());
        let records: Vec<Vec<Record>> = [first, second]
            .into_iter()
            .map(|records| {
                records
                    .into_iter()
                    .map(|fields| self::record(&prefix, fields))
                    .collect()
            })
            .collect();
        let files = Files::new();
        let inventory_file = files.write("inventory.csv", inventory(&prefix));
        for part in &records {
            let content = if as_csv { csv(part) } else { ndjson(part) };
            let file = files.write(&format!("usage-{}", part.len()), content);
            let output = command(database.url(), &["ingest", "--inventory"])
                .args([&inventory_file, &file])
                .env("SIMUSAGE_INGEST_BATCH_ROWS", batch_rows.to_string())
                .env(
                    "SIMUSAGE_INGEST_MAX_RECORD_BYTES_USED",
                    i64::MAX.to_string(),
                )
                .output()
                .unwrap();
            prop_assert!(output.status.success(), "{output:?}");
        }
        let all = records.concat();
        // The runner treats a panic as a failure of the case, and shrinks it.
        let compared = runtime.block_on(compare(&api, &all));
        if compared == 0 {
            Err(TestCaseError::fail("nothing was compared"))
        } else {
            Ok(())
        }
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
}

#[actix_web::test]
async fn a_record_at_a_full_hour_belongs_to_the_hour_that_starts_then() {
    let database = TestDatabase::migrated().await;
    let files = Files::new();
    let inventory_file = files.write("inventory.csv", inventory("s"));
    let records: Vec<_> = [-1, 0, 3_599, 3_600, 86_399, 86_400]
        .map(|offset| record("s", (1, 7, offset)))
        .into();
    let inventory = ["ingest", "--inventory", &inventory_file, "-"];
    assert_eq!(
        simusage_with_input(database.url(), &inventory, &ndjson(&records)).status,
        0
    );
    let api = Api::new(&database.config()).await;
    let dates: Vec<String> = fetch_series(&api, "simcard/s1", "1hour")
        .await
        .into_keys()
        .collect();
    let instant = |time: i64| -> DateTime<Utc> { DateTime::from_timestamp(time, 0).unwrap() };
    let hours = [-3_600, 0, 3_600, 82_800, 86_400].map(|offset| instant(START + offset));
    assert_eq!(
        dates,
        hours.map(|hour| hour.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))
    );
}
