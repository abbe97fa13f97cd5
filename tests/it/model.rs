//! Random histories of ingests, inventories, retention and clocks that jump, each answer of the API
//! compared with a model that only knows what was delivered.
//!
//! `SIMUSAGE_TEST_MODEL_S=3600` runs histories with new seeds for an hour, and
//! `SIMUSAGE_TEST_MODEL_SEED=7` repeats the one with that seed. Dates depend on today's.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, TimeZone as _, Utc};
use chrono_tz::Tz;
use fastrand::Rng;
use serde_json::{Value, json};
use simusage::config::Storage;
use simusage::db;

use crate::support::TestDatabase;
use crate::support::api::Api;
use crate::support::program::{Run, command};
use crate::support::usage::{Files, NEXT_SPAN};

/// The history of every run, and how many steps it has.
const SEED: u64 = 1;
const SHORT: u32 = 24;
/// Steps of a history in a longer run.
const LONG: u32 = 60;

/// The days that records may have, before today.
const DAYS: i64 = 80;
/// The age in days at which records are dropped once there is a retention.
const KEPT_DAYS: i64 = 40;
/// The age in days from which records may be rejected, because their days are dropped, too. There are
/// none of the ages for which it depends on the clock.
const OLD_DAYS: std::ops::RangeInclusive<i64> = 57..=63;
const KEPT_DAILY_DAYS: u32 = 60;
/// How many seconds the clock of a host may be wrong: records of today would be rejected if it were
/// slower, those of the future stored if it were faster.
const CLOCK_ERRORS: std::ops::RangeInclusive<i64> = -23 * 3_600..=47 * 3_600;
/// Days until the earliest record of the future.
const FUTURE_DAYS: i64 = 5;

/// Its owner never changes. Every source has a record of it, so none is rejected as a whole.
const STEADY: &str = "c0";

#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    sim_card: String,
    time: DateTime<Utc>,
    bytes: i64,
}

/// A record with the organization that owned the SIM card when it was stored.
#[derive(Debug, Clone)]
struct Stored {
    organization: String,
    record: Record,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Csv,
    Ndjson,
}

/// A file or a named stream that was ingested.
#[derive(Debug, Clone)]
struct Source {
    name: String,
    format: Format,
    records: Vec<Record>,
}

/// What the database should have.
#[derive(Default)]
struct Model {
    /// By SIM card and the start of the assignment in microseconds; `None` is an end.
    inventory: BTreeMap<(String, i64), Option<String>>,
    stored: Vec<Stored>,
    rejected: Vec<Record>,
    has_retention: bool,
    /// Whether days are dropped, too.
    has_daily_retention: bool,
    /// Days before it have been dropped, as the database says.
    kept_from: Option<NaiveDate>,
}

impl Model {
    /// Whether the clock and the retention allow a record of this instant.
    fn accepts(&self, time: DateTime<Utc>) -> bool {
        let old = World::midnight(*OLD_DAYS.start());
        let future = World::midnight(1 - FUTURE_DAYS);
        time < future
            && (time >= old || !self.has_daily_retention)
            && self.kept_from.is_none_or(|kept| time.date_naive() >= kept)
    }

    fn owner(&self, sim_card: &str, time: DateTime<Utc>) -> Option<String> {
        let card = sim_card.to_owned();
        let until = (card.clone(), time.timestamp_micros());
        let (_, owner) = self.inventory.range((card, i64::MIN)..=until).last()?;
        owner.clone()
    }

    fn deliver(&mut self, records: &[Record]) {
        for record in records {
            let owner = self.owner(&record.sim_card, record.time);
            match owner.filter(|_| self.accepts(record.time)) {
                Some(organization) => self.stored.push(Stored {
                    organization,
                    record: record.clone(),
                }),
                None => self.rejected.push(record.clone()),
            }
        }
    }

    /// The assignments as the API lists them.
    fn assignments(&self) -> Vec<Value> {
        let instant = |from: i64| {
            (from != i64::MIN).then(|| {
                let instant = DateTime::from_timestamp_micros(from).unwrap();
                instant.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
            })
        };
        let entries: Vec<_> = self.inventory.iter().collect();
        let mut all = vec![];
        for (index, ((card, from), owner)) in entries.iter().enumerate() {
            let Some(owner) = owner else { continue };
            let next = entries.get(index + 1).filter(|((next, _), _)| next == card);
            all.push(json!({
                "simcard": card,
                "organization": owner,
                "valid-from": instant(*from),
                "valid-until": next.and_then(|((_, from), _)| instant(*from)),
            }));
        }
        all
    }

    /// (bytes, records) of what `key` returns a key for.
    fn totals<K: Ord>(&self, key: impl Fn(&Stored) -> Option<K>) -> BTreeMap<K, (i64, i64)> {
        let mut totals = BTreeMap::new();
        for stored in &self.stored {
            if let Some(key) = key(stored) {
                let total: &mut (i64, i64) = totals.entry(key).or_default();
                total.0 += stored.record.bytes;
                total.1 += 1;
            }
        }
        totals
    }
}

struct World {
    database: TestDatabase,
    api: Api,
    files: Files,
    /// See src/clock.rs.
    clock: Clock,
    random: Rng,
    model: Model,
    sources: Vec<Source>,
    streams: Vec<Source>,
    /// Makes names and records differ.
    number: i64,
    /// What happened, for the message of a failure.
    log: Vec<String>,
}

impl World {
    async fn new(seed: u64) -> Self {
        let database = TestDatabase::migrated().await;
        let api = Api::new(&database.config()).await;
        let files = Files::new();
        let mut world = Self {
            database,
            api,
            clock: Clock(files.write("clock", "0").into()),
            files,
            random: Rng::with_seed(seed),
            model: Model::default(),
            sources: vec![],
            streams: vec![],
            number: 0,
            log: vec![],
        };
        world.load_inventory(false);
        world
    }

    fn today() -> NaiveDate {
        Utc::now().date_naive()
    }

    fn midnight(days_ago: i64) -> DateTime<Utc> {
        (Self::today() - TimeDelta::days(days_ago))
            .and_time(NaiveTime::MIN)
            .and_utc()
    }

    fn time(&mut self, oldest_days: i64, newest_days: i64) -> DateTime<Utc> {
        let day = Self::midnight(self.random.i64(newest_days..=oldest_days));
        // Often near the edges of days and hours.
        let second = match self.random.u8(0..4) {
            0 => self.random.i64(0..24) * 3_600,
            1 => 86_399,
            _ => self.random.i64(0..86_400),
        };
        day + TimeDelta::seconds(second) + TimeDelta::microseconds(self.random.i64(0..2))
    }

    fn records(&mut self, count: usize) -> Vec<Record> {
        let age = if self.random.u8(0..4) == 0 {
            KEPT_DAYS + 5
        } else {
            1
        };
        (0..count)
            .map(|index| {
                self.number += 1;
                let time = match self.random.u8(0..30) {
                    // At least one is stored.
                    _ if index == 0 => self.time(*OLD_DAYS.start() - 1, age),
                    0 => self.time(-FUTURE_DAYS, -FUTURE_DAYS - 300),
                    _ => loop {
                        let time = self.time(DAYS, age);
                        let days = (Self::midnight(0) - time).num_days();
                        if !OLD_DAYS.contains(&days) {
                            break time;
                        }
                    },
                };
                let sim_card = match self.random.u8(0..12) {
                    _ if index == 0 => STEADY.to_owned(),
                    11 => "unknown".to_owned(),
                    card => format!("c{}", card % 8),
                };
                let large = if self.random.u8(0..40) == 0 {
                    1 << 39
                } else {
                    0
                };
                Record {
                    sim_card,
                    time,
                    bytes: large + self.number * 1_000 + self.random.i64(0..1_000),
                }
            })
            .collect()
    }

    fn text(format: Format, records: &[Record]) -> String {
        let mut text = match format {
            Format::Csv => "sim-card-id,bytes-used,date\n".to_owned(),
            Format::Ndjson => String::new(),
        };
        for Record {
            sim_card,
            time,
            bytes,
        } in records
        {
            let date = time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true);
            match format {
                Format::Csv => writeln!(text, "{sim_card},{bytes},{date}").unwrap(),
                Format::Ndjson => writeln!(
                    text,
                    r#"{{"date":"{date}","sim-card-id":"{sim_card}","bytes-used":{bytes}}}"#
                )
                .unwrap(),
            }
        }
        text
    }

    /// Runs an ingest, which may be killed at a failpoint and repeated.
    fn ingest(&mut self, arguments: &[&str], input: Option<&str>, may_kill: bool) -> Run {
        let arguments = [&["ingest", "--json"], arguments].concat();
        let points = [
            "before-begin",
            "after-copy",
            "after-rejects",
            "before-commit",
            "after-commit",
            "before-refresh",
            "after-refresh",
        ];
        let rows = ["1", "3", "20", "100000"][self.random.usize(0..4)];
        let period = ["5", "50", "2000000"][self.random.usize(0..3)];
        let mut kill = (may_kill && self.random.u8(0..3) == 0).then(|| {
            format!(
                "{}:{}",
                points[self.random.usize(0..7)],
                self.random.u8(1..4)
            )
        });
        loop {
            let errors = [0; 3].map(|_| self.random.i64(CLOCK_ERRORS));
            self.log.push(format!(
                "{arguments:?} rows {rows}, period {period}, kill {kill:?}, clock {errors:?}"
            ));
            self.clock.set(errors[0]);
            let mut command = command(self.database.url(), &arguments);
            command
                .env("SIMUSAGE_INGEST_BATCH_ROWS", rows)
                .env("SIMUSAGE_INGEST_PERIOD_RECORDS", period)
                .env("SIMUSAGE_CLOCK_FILE", &self.clock.0)
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped());
            if let Some(kill) = &kill {
                command.env("SIMUSAGE_FAILPOINT", kill);
            }
            let mut child = command.spawn().unwrap();
            let mut stdin = child.stdin.take().unwrap();
            // Fails if the program was killed before.
            let _ = stdin.write_all(input.unwrap_or_default().as_bytes());
            drop(stdin);
            for error in &errors[1..] {
                std::thread::sleep(Duration::from_millis(self.random.u64(0..60)));
                self.clock.set(*error);
            }
            let run: Run = child.wait_with_output().unwrap().into();
            if kill.take().is_none() || run.status != -1 {
                return run;
            }
        }
    }

    fn store(&mut self, arguments: &[&str], input: Option<&str>, may_kill: bool) {
        let run = self.ingest(arguments, input, may_kill);
        assert!(run.status == 0 || run.status == 3, "{run:?}");
    }

    fn name(&mut self, extension: &str) -> String {
        self.number += 1;
        format!("usage-{}.{extension}", self.number)
    }

    fn format(&mut self) -> (Format, &'static str) {
        if self.random.bool() {
            (Format::Csv, "csv")
        } else {
            (Format::Ndjson, "ndjson")
        }
    }

    fn compressed(&mut self, text: &str) -> (Vec<u8>, &'static str) {
        match self.random.u8(0..4) {
            0 => (gzip(text.as_bytes()), ".gz"),
            1 => (zstd::encode_all(text.as_bytes(), 1).unwrap(), ".zst"),
            _ => (text.as_bytes().to_vec(), ""),
        }
    }

    /// A new file, or several in one run.
    fn new_files(&mut self) {
        let mut paths = vec![];
        for _ in 0..self.random.usize(1..4) {
            let (format, extension) = self.format();
            let count = self.random.usize(1..60);
            let records = self.records(count);
            let (content, suffix) = self.compressed(&Self::text(format, &records));
            let name = self.name(extension) + suffix;
            paths.push(self.files.write(&name, content));
            self.model.deliver(&records);
            self.sources.push(Source {
                name,
                format,
                records,
            });
        }
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        self.store(&paths, None, true);
        // Repeating the command stores nothing.
        if self.random.bool() {
            self.store(&paths, None, false);
        }
    }

    fn take_source(&mut self) -> Option<usize> {
        (!self.sources.is_empty()).then(|| self.random.usize(0..self.sources.len()))
    }

    /// A file grows, first by a part of its last line.
    fn grow(&mut self) {
        let Some(index) = self.take_source() else {
            return;
        };
        let count = self.random.usize(1..20);
        let more = self.records(count);
        let Source {
            name,
            format,
            mut records,
        } = self.sources[index].clone();
        records.extend(more.iter().cloned());
        let text = Self::text(format, &records);
        let plain = format!("grown-{}", name.replace(".gz", "").replace(".zst", ""));
        let last = text.trim_end().rfind('\n').unwrap() + 1;
        let cut = last + self.random.usize(1..(text.len() - last - 1));
        if self.random.bool() {
            let path = self.files.write(&plain, &text[..cut]);
            let run = self.ingest(&[&path], None, true);
            // Without its line end, a whole record may be stored.
            assert!(run.status == 0 || run.status == 3, "{run:?}");
        }
        let path = self.files.write(&plain, &text);
        self.model.deliver(&more);
        self.store(&[&path], None, true);
        self.sources[index] = Source {
            name: plain,
            format,
            records,
        };
    }

    /// A corrected, truncated, renamed or damaged copy, of which nothing may be stored.
    fn copy(&mut self) {
        let Some(index) = self.take_source() else {
            return;
        };
        let Source {
            name,
            format,
            records,
        } = self.sources[index].clone();
        let kind = self.random.u8(0..4);
        if records.len() < 12 {
            return;
        }
        let plain = name.replace(".gz", "").replace(".zst", "");
        let own_name = self.random.bool();
        let copy_name = if own_name {
            plain.clone()
        } else {
            self.name(plain.rsplit('.').next().unwrap())
        };
        match kind {
            // A corrected line.
            0 => {
                let mut corrected = records.clone();
                let line = self.random.usize(0..corrected.len());
                corrected[line].bytes += 1;
                let path = self.files.write(&copy_name, Self::text(format, &corrected));
                let run = self.ingest(&[&path], None, true);
                assert_eq!(run.status, 1, "{run:?}");
            }
            // An earlier version of the file.
            1 => {
                let length = self.random.usize(1..records.len());
                let path = self
                    .files
                    .write(&copy_name, Self::text(format, &records[..length]));
                self.store(&[&path], None, true);
            }
            // Another name, compression or kind of line end.
            2 => {
                let text = Self::text(format, &records).replace('\n', "\r\n");
                let path = self
                    .files
                    .write(&format!("{copy_name}.gz"), gzip(text.as_bytes()));
                self.store(&[&path], None, true);
            }
            // Damaged, and then intact: new records.
            _ => {
                let count = self.random.usize(12..40);
                let records = self.records(count);
                let content = gzip(Self::text(format, &records).as_bytes());
                let mut damaged = content.clone();
                let at = content.len() - self.random.usize(1..8);
                damaged[at] ^= 1 << self.random.u8(0..8);
                let extension = if format == Format::Csv {
                    "csv.gz"
                } else {
                    "ndjson.gz"
                };
                let name = self.name(extension);
                let path = self.files.write(&name, damaged);
                let run = self.ingest(&[&path], None, true);
                assert_eq!(run.status, 1, "{run:?}");
                let path = self.files.write(&name, content);
                self.model.deliver(&records);
                self.store(&[&path], None, true);
                self.sources.push(Source {
                    name,
                    format,
                    records,
                });
            }
        }
    }

    /// A log is rotated: its name gets other records.
    fn rotate(&mut self) {
        let Some(index) = self.take_source() else {
            return;
        };
        let old = self.sources[index].clone();
        let plain = old.name.replace(".gz", "").replace(".zst", "");
        let rotated = self
            .files
            .write(&format!("{plain}.1"), Self::text(old.format, &old.records));
        let count = self.random.usize(1..30);
        let records = self.records(count);
        let path = self.files.write(&plain, Self::text(old.format, &records));
        self.model.deliver(&records);
        let format = if old.format == Format::Csv {
            "csv"
        } else {
            "ndjson"
        };
        self.store(&["--format", format, &rotated, &path], None, true);
        self.sources.push(Source {
            name: plain,
            format: old.format,
            records,
        });
    }

    /// A named stream, replayed from its start, and an unnamed one.
    fn stream(&mut self) {
        let count = self.random.usize(1..30);
        let more = self.records(count);
        if self.random.bool() {
            let text = Self::text(Format::Ndjson, &more);
            self.model.deliver(&more);
            self.store(&["-"], Some(&text), false);
            return;
        }
        if self.streams.len() < 3 {
            let name = self.name("stream");
            self.streams.push(Source {
                name,
                format: Format::Ndjson,
                records: vec![],
            });
        }
        let index = self.random.usize(0..self.streams.len());
        self.streams[index].records.extend(more.iter().cloned());
        let Source { name, records, .. } = self.streams[index].clone();
        self.model.deliver(&more);
        let text = Self::text(Format::Ndjson, &records);
        self.store(&["--source-id", &name, "-"], Some(&text), true);
    }

    fn load_inventory(&mut self, replace: bool) {
        let mut changes: BTreeMap<(String, i64), Option<String>> = BTreeMap::new();
        changes.insert((STEADY.to_owned(), i64::MIN), Some("o0".to_owned()));
        for _ in 0..self.random.usize(1..14) {
            let card = format!("c{}", self.random.u8(1..8));
            let from = match self.random.u8(0..4) {
                0 => i64::MIN,
                1 => self.time(DAYS, 0).timestamp_micros(),
                _ => Self::midnight(self.random.i64(0..DAYS)).timestamp_micros(),
            };
            let is_end = from != i64::MIN && self.random.u8(0..4) == 0;
            let owner = (!is_end).then(|| format!("o{}", self.random.u8(0..4)));
            changes.insert((card, from), owner);
        }
        let mut text = "sim-card-id,org-id,valid-from\n".to_owned();
        for ((card, from), owner) in &changes {
            let from = match *from {
                i64::MIN => String::new(),
                from => DateTime::from_timestamp_micros(from).unwrap().to_rfc3339(),
            };
            writeln!(text, "{card},{},{from}", owner.as_deref().unwrap_or("")).unwrap();
        }
        let path = self.files.write("inventory.csv", &text);
        self.log.push(text);
        let before = self.model.inventory.clone();
        if replace {
            self.model.inventory.clear();
        }
        self.model.inventory.extend(changes.clone());
        let mut arguments = vec!["--inventory", &path];
        arguments.extend(replace.then_some("--replace-inventory"));
        let run = self.ingest(&arguments, None, false);
        assert_eq!(run.status, 0, "{run:?}");
        let is =
            |(key, owner): &(&(String, i64), &Option<String>)| before.get(*key) == Some(*owner);
        let unchanged = changes.iter().filter(is).count();
        let added = changes
            .keys()
            .filter(|key| !before.contains_key(*key))
            .count();
        let others = before
            .keys()
            .filter(|key| !changes.contains_key(*key))
            .count();
        let expected = json!({
            "added": added,
            "moved": changes.len() - added - unchanged,
            "unchanged": unchanged,
            "left": if replace { 0 } else { others },
            "removed": if replace { others } else { 0 },
        });
        assert_eq!(run.json()["inventory"], expected);
    }

    fn replay(&mut self) {
        self.store(&["--replay-rejects"], None, true);
        let rejected = std::mem::take(&mut self.model.rejected);
        self.model.deliver(&rejected);
    }

    async fn close(&mut self) {
        let mut connection = self.database.connect().await;
        match self.random.u8(0..3) {
            0 => {
                self.log.push("close a page".to_owned());
                db::close_page(&connection).await.unwrap();
            }
            1 => {
                self.log.push("close a period".to_owned());
                db::close_period(&mut connection, None).await.unwrap();
            }
            _ => {
                let drops = self.random.bool();
                self.log.push(format!("end a span, drop {drops}"));
                connection.batch_execute(NEXT_SPAN).await.unwrap();
                db::close_period(&mut connection, None).await.unwrap();
                db::merge_span(&connection).await.unwrap();
                if drops {
                    let earlier =
                        "update sim_card_spans set decided_at = decided_at - interval '2 minutes'";
                    connection.batch_execute(earlier).await.unwrap();
                    db::drop_old(&connection).await.unwrap();
                }
            }
        }
    }

    /// Drops what is old enough, after the current chunk has ended.
    async fn drop_old(&mut self) {
        let days = u32::try_from(KEPT_DAYS).unwrap();
        let daily_days = [0, KEPT_DAILY_DAYS][self.random.usize(0..2)];
        let clock_error = self.random.i64(CLOCK_ERRORS);
        self.log.push(format!(
            "drop old records, days {daily_days}, clock {clock_error}"
        ));
        let storage = Storage {
            retention_records_days: days,
            retention_hourly_days: days,
            retention_daily_days: daily_days,
        };
        let config = self.database.config();
        db::migrate::migrate(&config.database, &storage, &config.feeds)
            .await
            .unwrap();
        self.database.end_chunk().await;
        let connection = self.database.connect().await;
        if self.random.bool() {
            db::drop_old(&connection).await.unwrap();
        } else {
            // The clock of the database may be wrong, too.
            let dropped =
                "select drop_expired(level, now() + make_interval(secs => $1)) from usage_levels";
            #[expect(clippy::cast_precision_loss, reason = "a few days")]
            let seconds = clock_error as f64;
            connection.query(dropped, &[&seconds]).await.unwrap();
        }
        let kept = "select nullif(kept_from, '-infinity') from usage_levels where level = 'sim_card_usage'";
        let kept = connection.query_one(kept, &[]).await.unwrap();
        self.model.has_retention = true;
        self.model.has_daily_retention = daily_days > 0;
        self.model.kept_from = kept.get(0);
    }

    async fn step(&mut self) {
        match self.random.u8(0..20) {
            0..=5 => self.new_files(),
            6..=8 => self.grow(),
            9..=11 => self.copy(),
            12 => self.rotate(),
            13 | 14 => self.stream(),
            15 => self.load_inventory(self.random.clone().bool()),
            16 => self.replay(),
            17 | 18 => self.close().await,
            _ => {
                if self.random.bool() {
                    self.drop_old().await;
                }
            }
        }
        self.check().await;
    }

    /// The body of an answer; `None` if it says that a part of the interval is no longer kept.
    async fn answer(&self, path: &str) -> Option<Value> {
        let answer = self.api.get(path).await;
        if self.model.has_retention
            && answer.status == 422
            && answer.text.contains("no longer kept")
        {
            return None;
        }
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        Some(answer.body)
    }

    /// The items of all pages, whose totals must be equal and match.
    async fn all_items(&self, path: &str) -> Option<Vec<Value>> {
        let (mut items, mut next) = (vec![], Some(path.to_owned()));
        let mut totals = BTreeSet::new();
        while let Some(path) = next {
            let page = self.answer(&path).await?;
            assert_eq!(page.get("list-changed"), None, "{path}");
            items.extend(page["items"].as_array().unwrap().iter().cloned());
            totals.insert((
                page["total"].as_u64().unwrap(),
                page["bytes-used-total"].as_i64(),
            ));
            next = page["next"].as_str().map(str::to_owned);
        }
        let bytes: i64 = items
            .iter()
            .filter_map(|item| item["bytes-used-total"].as_i64())
            .sum();
        let (total, all_bytes) = totals.pop_first().unwrap();
        assert!(totals.is_empty(), "{path}: the pages have different totals");
        assert_eq!(total, items.len() as u64, "{path}");
        assert!(all_bytes.is_none_or(|all| all == bytes), "{path}");
        Some(items)
    }

    async fn check(&mut self) {
        let zones: [Tz; 4] = [Tz::UTC, Tz::UTC, Tz::Europe__Berlin, Tz::Asia__Kathmandu];
        for _ in 0..2 {
            let tz = zones[self.random.usize(0..4)];
            let first = self.random.i64(0..DAYS);
            let last = self.random.i64(0..=first);
            let (start, end) = (
                Self::today() - TimeDelta::days(first),
                Self::today() - TimeDelta::days(last),
            );
            let within = move |time: DateTime<Utc>| {
                (start..=end).contains(&time.with_timezone(&tz).date_naive())
            };
            let interval = format!("start={start}&end={end}&tz={tz}");
            let size = self.random.u8(1..8);
            self.check_lists(&interval, size, within).await;
            self.check_series(&interval, size, tz, within).await;
        }
        let (all, size) = (|_| true, self.random.u8(1..8));
        self.check_lists("tz=UTC", size, all).await;
        let path = format!("/api/v1/inventory?size={size}");
        assert_eq!(
            self.all_items(&path).await.unwrap(),
            self.model.assignments(),
            "{path}"
        );
        self.check_differences().await;
    }

    async fn check_lists(
        &mut self,
        interval: &str,
        size: u8,
        within: impl Fn(DateTime<Utc>) -> bool + Copy,
    ) {
        let order = ["-bytes", "bytes", "id"][self.random.usize(0..3)];
        let organization = format!("o{}", self.random.u8(0..4));
        let known = self
            .model
            .inventory
            .values()
            .flatten()
            .any(|owner| *owner == organization);
        let of_organization = format!("simcards?organization={organization}&");
        let lists = [
            ("organizations?", "organization", true),
            ("simcards?", "simcard", true),
            (&*of_organization, "simcard", known),
        ];
        for (list, name, _) in lists.into_iter().filter(|(.., known)| *known) {
            let path = format!("/api/v1/usage/{list}{interval}&sort={order}&size={size}");
            let Some(items) = self.all_items(&path).await else {
                continue;
            };
            let expected = self.model.totals(
                |Stored {
                     organization: owner,
                     record,
                 }| {
                    let listed =
                        within(record.time) && (!list.contains('&') || *owner == organization);
                    let id = if name == "simcard" {
                        &record.sim_card
                    } else {
                        owner
                    };
                    listed.then(|| id.clone())
                },
            );
            let mut expected: Vec<_> = expected.into_iter().collect();
            expected.sort_by_key(|(id, (bytes, _))| match order {
                "bytes" => (*bytes, id.clone()),
                "-bytes" => (-*bytes, id.clone()),
                _ => (0, id.clone()),
            });
            let expected: Vec<Value> = expected
                .into_iter()
                .map(|(id, (bytes, records))| json!({name: id, "bytes-used-total": bytes, "records": records}))
                .collect();
            assert_eq!(items, expected, "{path}");
        }
    }

    async fn check_series(
        &mut self,
        interval: &str,
        size: u8,
        tz: Tz,
        within: impl Fn(DateTime<Utc>) -> bool + Copy,
    ) {
        let by_card = self.random.bool();
        let id = if by_card {
            format!("c{}", self.random.u8(0..8))
        } else {
            format!("o{}", self.random.u8(0..4))
        };
        let subject = if by_card { "simcard" } else { "organization" };
        let hours = self.random.u8(0..3) == 0;
        let every = if hours { "1hour" } else { "1day" };
        let size = if hours { 200 } else { size };
        let path = format!("/api/v1/{subject}/{id}/usage?{interval}&every={every}&size={size}");
        let response = self.api.get(&path).await;
        if response.status == 404 {
            let used = self
                .model
                .stored
                .iter()
                .any(|stored| stored.organization == id || stored.record.sim_card == id);
            assert!(!used, "{path}: not found");
            return;
        }
        let Some(items) = self.all_items(&path).await else {
            return;
        };
        let expected = self.model.totals(
            |Stored {
                 organization,
                 record,
             }| {
                let is_own = if by_card {
                    record.sim_card == id
                } else {
                    *organization == id
                };
                let local = record.time.with_timezone(&tz);
                let start = if hours {
                    // Every zone of this test has buckets at the same minutes all year.
                    let offset = TimeDelta::minutes(i64::from(tz == Tz::Asia__Kathmandu) * 45);
                    let shifted = (record.time + offset).timestamp().div_euclid(3_600) * 3_600;
                    DateTime::from_timestamp(shifted, 0).unwrap() - offset
                } else {
                    let midnight = local.date_naive().and_time(NaiveTime::MIN);
                    tz.from_local_datetime(&midnight)
                        .earliest()
                        .unwrap()
                        .to_utc()
                };
                (is_own && within(record.time)).then_some(start)
            },
        );
        let actual: BTreeMap<DateTime<Utc>, (i64, i64)> = items
            .iter()
            .map(|item| {
                let date = item["date"].as_str().unwrap().parse().unwrap();
                (
                    date,
                    (
                        item["bytes-used-total"].as_i64().unwrap(),
                        item["records"].as_i64().unwrap(),
                    ),
                )
            })
            .collect();
        assert_eq!(actual, expected, "{path}");
        assert_eq!(items.len(), expected.len(), "{path}");
    }

    /// Compares the owners of stored records with the inventory.
    async fn check_differences(&self) {
        if self.model.has_retention {
            return;
        }
        let connection = self.database.connect().await;
        let found = db::inventory_differences(&connection).await.unwrap();
        let found: BTreeMap<_, _> = found
            .into_iter()
            .map(|found| {
                (
                    (found.stored, found.current),
                    (i64::try_from(found.bytes).unwrap(), found.records),
                )
            })
            .collect();
        let expected = self.model.totals(
            |Stored {
                 organization,
                 record,
             }| {
                let current = self.model.owner(&record.sim_card, record.time);
                (current.as_ref() != Some(organization)).then(|| (organization.clone(), current))
            },
        );
        assert_eq!(found, expected);
    }
}

/// A file with the seconds by which the clock is wrong.
struct Clock(PathBuf);

impl Clock {
    /// Replaces the file, so that a reader never finds a part of it.
    fn set(&self, error: i64) {
        let new = self.0.with_extension("new");
        std::fs::write(&new, error.to_string()).unwrap();
        std::fs::rename(new, &self.0).unwrap();
    }
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// Prints the history if a step fails.
struct Told<'a>(&'a mut World, u64);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("seed {}: {}", self.1, self.0.log.join("\n"));
        }
    }
}

async fn history(seed: u64, steps: u32) {
    println!("seed {seed}");
    let mut world = World::new(seed).await;
    let told = Told(&mut world, seed);
    for step in 0..steps {
        told.0.log.push(format!("step {step}"));
        told.0.step().await;
    }
}

#[actix_web::test]
async fn every_answer_equals_that_of_the_model() {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse().expect("a number"))
    };
    let seed = number("SIMUSAGE_TEST_MODEL_SEED");
    let Some(seconds) = number("SIMUSAGE_TEST_MODEL_S") else {
        return history(
            seed.unwrap_or(SEED),
            if seed.is_some() { LONG } else { SHORT },
        )
        .await;
    };
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < deadline {
        history(fastrand::u64(0..1_000_000_000), LONG).await;
    }
}
