//! The queries of the Grafana dashboards and alert rules: each SQL statement runs as Grafana's
//! user, and each metric exists.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use chrono::TimeDelta;
use serde_json::Value;
use simusage::db::Connection;

use crate::support::kafka::{Kafka, signal};
use crate::support::program::{command, inventory, load_inventory, simusage};
use crate::support::server::Server;
use crate::support::stack::{environment, items, services, text, texts, yaml};
use crate::support::usage::{Files, ndjson};
use crate::support::{TestDatabase, at};

const DASHBOARDS: [&str; 2] = [
    "grafana/dashboards/usage.json",
    "grafana/dashboards/simusage.json",
];
const ALERTS: &str = "grafana/provisioning/alerting/simusage.yml";
const DATA_SOURCES: &str = "grafana/provisioning/datasources/simusage.yml";

/// A query that Grafana sends to a data source.
struct GrafanaQuery {
    /// The dashboard and panel, or the alert rule.
    location: String,
    source: String,
    /// SQL, or an expression for Prometheus.
    text: String,
    /// Variables of the dashboard.
    variables: Vec<Value>,
}

fn query_of(location: String, source: &Value, model: &Value, variables: &[Value]) -> GrafanaQuery {
    let text = model["rawSql"]
        .as_str()
        .or(model["expr"].as_str())
        .unwrap_or_else(|| panic!("{location} has no query"));
    let source = source
        .as_str()
        .unwrap_or_else(|| panic!("{location} has no data source"))
        .to_owned();
    GrafanaQuery {
        location,
        source,
        text: text.to_owned(),
        variables: variables.to_vec(),
    }
}

/// All queries to the data source with this identifier.
fn queries_to(source: &str) -> Vec<GrafanaQuery> {
    let mut all = vec![];
    for file in DASHBOARDS {
        let dashboard = yaml(file);
        let variables = items(&dashboard["templating"]["list"]);
        for panel in items(&dashboard["panels"]) {
            for target in items(&panel["targets"]) {
                let location = format!("{file}: {}", panel["title"]);
                assert_eq!(panel["datasource"], target["datasource"], "{location}");
                all.push(query_of(
                    location,
                    &target["datasource"]["uid"],
                    target,
                    variables,
                ));
            }
        }
    }
    for rule in items(&yaml(ALERTS)["groups"])
        .iter()
        .flat_map(|group| items(&group["rules"]))
    {
        for data in items(&rule["data"])
            .iter()
            .filter(|data| data["datasourceUid"] != "__expr__")
        {
            all.push(query_of(
                format!("{ALERTS}: {}", rule["title"]),
                &data["datasourceUid"],
                &data["model"],
                &[],
            ));
        }
    }
    all.retain(|query| query.source == source);
    assert!(all.len() > 5);
    all
}

/// The text before the first use of a macro, its arguments, and the text after it.
fn split_macro<'a>(sql: &'a str, name: &str) -> Option<(&'a str, Vec<&'a str>, &'a str)> {
    let (before, rest) = sql.split_once(&format!("{name}("))?;
    let (arguments, after) = rest
        .split_once(')')
        .unwrap_or_else(|| panic!("{name} is not closed in {sql}"));
    Some((before, arguments.split(',').map(str::trim).collect(), after))
}

fn replace_macro(sql: &str, name: &str, expand: impl Fn(&[&str]) -> String) -> String {
    let mut sql = sql.to_owned();
    while let Some((before, arguments, after)) = split_macro(&sql, name) {
        sql = format!("{before}{}{after}", expand(&arguments));
    }
    sql
}

/// SQL with the macros expanded as in Grafana's PostgreSQL data source with TimescaleDB enabled.
fn expanded(sql: &str) -> String {
    let (from, to) = ("'2020-01-01T00:00:00Z'", "'2199-01-01T00:00:00Z'");
    let group = |arguments: &[&str]| {
        let interval = arguments[1].trim_matches('\'');
        let (number, unit) = interval.split_at(interval.len() - 1);
        let unit = match unit {
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => panic!("{interval} is not an interval"),
        };
        format!(
            "time_bucket('{}s', {})",
            number.parse::<u32>().unwrap() * unit,
            arguments[0]
        )
    };
    let sql = replace_macro(sql, "$__timeGroupAlias", |arguments| {
        group(arguments) + " as \"time\""
    });
    let sql = replace_macro(&sql, "$__timeGroup", group);
    let sql = replace_macro(&sql, "$__timeFilter", |arguments| {
        format!("{} between {from} and {to}", arguments[0])
    });
    let sql = replace_macro(&sql, "$__timeFrom", |_| from.to_owned());
    let sql = replace_macro(&sql, "$__timeTo", |_| to.to_owned());
    sql.replace("$__interval", "1h")
}

/// The statement for each combination of the dashboard's variables.
async fn statements(connection: &Connection, query: &GrafanaQuery) -> Vec<String> {
    let mut statements = vec![query.text.clone()];
    for variable in &query.variables {
        let name = variable["name"].as_str().unwrap();
        let (list, value) = (format!("${{{name}:sqlstring}}"), format!("${name}"));
        if variable["type"] == "query" {
            // As if "All" is selected.
            let rows = connection
                .query(variable["query"].as_str().unwrap(), &[])
                .await
                .unwrap();
            let values: Vec<String> = rows
                .iter()
                .map(|row| format!("'{}'", row.get::<_, &str>(0)))
                .collect();
            assert!(!values.is_empty(), "{name} has no value");
            statements = statements
                .iter()
                .map(|sql| sql.replace(&list, &values.join(",")))
                .collect();
        } else {
            let values: Vec<&str> = variable["query"].as_str().unwrap().split(',').collect();
            let each = |sql: String| {
                values
                    .iter()
                    .map(|chosen| sql.replace(&value, chosen))
                    .collect::<Vec<_>>()
            };
            statements = statements.into_iter().flat_map(each).collect();
        }
    }
    statements.iter().map(|sql| expanded(sql)).collect()
}

/// Creates a user with the privileges that grafana-role.sql grants.
async fn create_grafana_user(connection: &Connection) -> String {
    let name = format!("grafana_test_{}", std::process::id());
    connection
        .batch_execute(&format!("create role {name} login"))
        .await
        .unwrap();
    let script = text("grafana/grafana-role.sql");
    let grants: Vec<&str> = script
        .lines()
        .filter(|line| line.starts_with("grant "))
        .collect();
    assert!(grants.len() >= 4);
    for grant in grants {
        let grant = grant.replace(" to grafana;", &format!(" to {name};"));
        connection
            .batch_execute(&grant)
            .await
            .unwrap_or_else(|error| panic!("{grant}: {error:?}"));
    }
    name
}

#[tokio::test]
async fn every_statement_runs_as_the_grafana_user_and_returns_rows() {
    let database = TestDatabase::migrated().await;
    let files = Files::new();
    let file = files.write("usage.ndjson", ndjson(0..100));
    let run = simusage(
        database.url(),
        &[
            "ingest",
            "--inventory",
            inventory().to_str().unwrap(),
            &file,
        ],
    );
    assert_eq!(run.status, 3, "{run:?}");
    let connection = database.connect().await;
    let user = create_grafana_user(&connection).await;
    connection
        .batch_execute(&format!("set role {user}"))
        .await
        .unwrap();
    let mut executed = BTreeSet::new();
    for query in queries_to("simusage") {
        for sql in statements(&connection, &query).await {
            assert!(!sql.contains('$'), "{}: {sql}", query.location);
            let rows = connection.query(&sql, &[]).await;
            let rows = rows.unwrap_or_else(|error| panic!("{}: {error:?}\n{sql}", query.location));
            assert!(
                !rows.is_empty(),
                "{} returns no rows\n{sql}",
                query.location
            );
            executed.insert(sql);
        }
    }
    assert!(executed.len() > 10, "{executed:#?}");
    for secret in [
        "select * from tokens",
        "select raw from rejected_records",
        "select detail from rejected_records",
    ] {
        let refused = connection.query(secret, &[]).await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "42501", "{secret}");
    }
    connection
        .batch_execute(&format!(
            "reset role; drop owned by {user}; drop role {user}"
        ))
        .await
        .unwrap();
}

#[cfg(debug_assertions)]
#[tokio::test]
async fn the_alert_for_open_periods_fires_until_an_ingest_runs() {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    let rules = queries_to("simusage");
    let sql = &rules
        .iter()
        .find(|query| query.location.contains("Periods are not closed"))
        .unwrap()
        .text;
    let connection = database.connect().await;
    let query = format!("select records::bigint from ({sql}) as alert");
    let records = async || database.number(&query).await;
    let later = "update ingest_sources set updated_at = updated_at - interval '1 hour'";
    assert_eq!(records().await, 0, "there are no records");
    let files = Files::new();
    // The second file goes to the columnstore.
    for (name, numbers, batch, stored) in [
        ("recent", 0..100, "50", 90),
        ("bulk", 1_000..26_000, "25000", 22_500),
    ] {
        let file = files.write(&format!("{name}.ndjson"), ndjson(numbers));
        let died = command(database.url(), &["ingest", &file])
            .env("SIMUSAGE_INGEST_BATCH_ROWS", batch)
            .env("SIMUSAGE_FAILPOINT", "before-refresh:1")
            .output()
            .unwrap();
        assert_eq!(died.status.code(), None, "{died:?}");
        assert_eq!(records().await, 0, "{name}: the ingest may be running");
        connection.batch_execute(later).await.unwrap();
        assert_eq!(records().await, stored, "{name}: the ingest was killed");
        // As the description of the alert says.
        load_inventory(database.url());
        assert_eq!(records().await, 0, "{name}: an ingest has closed it");
    }
    // Without a failure, nothing fires, although the page's records are in no closed period.
    let file = files.write("small.ndjson", ndjson(30_000..30_010));
    simusage(database.url(), &["ingest", &file]);
    connection.batch_execute(later).await.unwrap();
    assert_eq!(records().await, 0, "what is left of a stream is normal");
    // A running ingest that cannot close periods.
    let failing = "update posting_days set records = records + 40000000 where is_recent;
                   update ingest_sources set updated_at = now()";
    connection.batch_execute(failing).await.unwrap();
    assert!(records().await > 40_000_000);
}

#[tokio::test]
async fn usage_by_organization_adds_up_the_records_of_each_bucket() {
    let database = TestDatabase::migrated().await;
    let start = at("2020-02-26T22:50:00Z");
    let owners = [
        ("89440001", "a01b7"),
        ("89440002", "a01b7"),
        ("89440010", "x00g8"),
    ];
    let records: Vec<_> = (0..1_500)
        .zip(owners.iter().cycle())
        .map(|(number, (card, organization))| {
            let is_large = number % 500 == 7;
            let bytes = if is_large { i64::MAX / 4 } else { 1_000 };
            let time = start + TimeDelta::minutes(7) * number;
            (*card, *organization, time, bytes)
        })
        .collect();
    database.load(&records).await;
    let connection = database.connect().await;
    let intervals = [
        // Whole days, whole quarter hours, neither, less than a quarter hour, all, and none.
        "'2020-02-27Z', '2020-03-02Z'",
        "'2020-02-27 22:45Z', '2020-03-02 01:15Z'",
        "'2020-02-27 22:47:13Z', '2020-03-02 01:12Z'",
        "'2020-02-27 22:47:13Z', '2020-02-27 22:59Z'",
        "'2020-02-27 22:45Z', '2020-02-27 23:15Z'",
        "'2020-02-27 23:59Z', '2020-02-28 00:01Z'",
        "null, null",
        "'-infinity', 'infinity'",
        "'2020-03-01Z', '2020-03-01Z'",
    ];
    let widths = [
        "7 minutes",
        "15 minutes",
        "1 hour",
        "36 hours",
        "1 day",
        "7 days",
        "1 month",
        "1 year",
    ];
    let mut rows = 0;
    for interval in intervals {
        let (from, to) = interval.split_once(", ").unwrap();
        for every in widths {
            for names in ["null", "array['x00g8']", "array['nobody']", "'{}'"] {
                let difference = format!(
                    "with answer as (
                         select * from usage_by_organization({interval}, '{every}', {names})
                     ),
                     expected as (
                         select
                             time_bucket('{every}', time) as bucket, name as organization, sum(bytes) as bytes,
                             count(*) as records
                         from all_usage_records
                         join organizations on organizations.id = organization_id
                         where time >= coalesce({from}::timestamptz, '-infinity')
                             and time < coalesce({to}::timestamptz, 'infinity')
                             and ({names}::text[] is null or name = any({names}))
                         group by 1, 2
                     )
                     select
                         (select count(*) from answer) as rows,
                         (
                             select count(*)
                             from (
                                 (select * from answer except all select * from expected)
                                 union all
                                 (select * from expected except all select * from answer)
                             ) as different
                         ) as different"
                );
                let row = connection.query_one(&difference, &[]).await.unwrap();
                assert_eq!(
                    row.get::<_, i64>("different"),
                    0,
                    "{interval}, {every}, {names}"
                );
                rows += row.get::<_, i64>("rows");
            }
        }
    }
    assert!(rows > 3_000, "{rows}");
    let dropped = "update usage_levels set kept_from = '2020-02-28' where level = 'usage_records'";
    connection.batch_execute(dropped).await.unwrap();
    let sum = "select * from usage_by_organization('2020-02-27Z', '2020-03-02Z', ";
    connection
        .batch_execute(&format!("{sum}'1 hour')"))
        .await
        .unwrap();
    let error = connection
        .batch_execute(&format!("{sum}'7 minutes')"))
        .await
        .unwrap_err();
    assert_eq!(
        error.as_db_error().unwrap().message(),
        "usage_records no longer has everything before 2020-02-28: begin the interval there or later, or use wider buckets"
    );
}

/// The names of the samples in Prometheus's text format.
fn names(metrics: &str) -> BTreeSet<String> {
    let samples = metrics
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    samples
        .map(|line| line[..line.find(['{', ' ']).unwrap()].to_owned())
        .collect()
}

fn get(address: &str) -> String {
    let mut response = String::new();
    let mut connection = TcpStream::connect(address).unwrap();
    connection
        .write_all(b"GET /metrics HTTP/1.0\r\n\r\n")
        .unwrap();
    connection.read_to_string(&mut response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(" 200 "), "{head}");
    body.to_owned()
}

/// The metrics of an ingest from Kafka, once it reports its lag.
async fn metrics_of_ingest(database: &TestDatabase) -> BTreeSet<String> {
    let kafka = Kafka::start(1);
    kafka.send(&ndjson(0..3));
    let mut child = kafka
        .ingest(database.url(), &["--metrics-listen", "127.0.0.1:0"])
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let url = log
        .find_map(|line| Some(line.split_once("metrics on http://")?.1.to_owned()))
        .unwrap();
    std::thread::spawn(move || log.for_each(drop));
    let found = loop {
        let found = names(&get(url.trim_end_matches("/metrics")));
        if found.contains("simusage_ingest_lag_records") {
            break found;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    signal(&child, "TERM");
    child.wait().unwrap();
    found
}

#[tokio::test]
async fn every_metric_exists() {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    let server = Server::start(database.url());
    server.get("/api/v1/inventory");
    let mut known = names(&get(server.address()));
    known.extend(metrics_of_ingest(&database).await);
    let mut used = BTreeSet::new();
    for query in queries_to("simusage-prometheus") {
        let is_part_of_a_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let words = query.text.split(|c| !is_part_of_a_name(c));
        let metrics: Vec<&str> = words
            .filter(|word| word.starts_with("simusage_") || word.starts_with("process_"))
            .collect();
        assert!(!metrics.is_empty(), "{}: {}", query.location, query.text);
        for metric in metrics {
            assert!(
                known.contains(metric),
                "{}: {metric} is not in {known:#?}",
                query.location
            );
            used.insert(metric.to_owned());
        }
    }
    assert!(used.len() > 10, "{used:?}");
}

#[test]
fn every_query_uses_a_provisioned_data_source() {
    let sources = yaml(DATA_SOURCES);
    let provisioned: BTreeSet<&str> = items(&sources["datasources"])
        .iter()
        .map(|source| source["uid"].as_str().unwrap())
        .collect();
    assert_eq!(
        provisioned,
        BTreeSet::from(["simusage", "simusage-prometheus"])
    );
    // A query to any other data source would be missing from the sum.
    let panels = |file: &&str| {
        items(&yaml(file)["panels"])
            .iter()
            .map(|panel| items(&panel["targets"]).len())
            .sum::<usize>()
    };
    let of_alerts = items(&yaml(ALERTS)["groups"][0]["rules"]).len();
    let found: usize = provisioned
        .iter()
        .map(|source| queries_to(source).len())
        .sum();
    assert_eq!(
        found,
        DASHBOARDS.iter().map(panels).sum::<usize>() + of_alerts
    );

    let services = services();
    let variables = environment(&services["grafana"]);
    let file = text(DATA_SOURCES);
    let named: Vec<&str> = file
        .split('$')
        .skip(1)
        .map(|rest| rest.lines().next().unwrap())
        .collect();
    assert!(
        named.len() == 5 && named.iter().all(|name| variables.contains_key(*name)),
        "{named:?}"
    );
    let mounted: Vec<&str> = texts(&services["grafana"]["volumes"]);
    let dashboards = yaml("grafana/provisioning/dashboards/simusage.yml");
    let folder = dashboards["providers"][0]["options"]["path"]
        .as_str()
        .unwrap();
    assert!(
        mounted.contains(&&*format!("./grafana/dashboards:{folder}:ro")),
        "{mounted:?}"
    );
    let home = &variables["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"];
    assert_eq!(home, &format!("{folder}/usage.json"));
    let mut identifiers: Vec<Value> = DASHBOARDS
        .iter()
        .map(|file| yaml(file)["uid"].clone())
        .collect();
    identifiers.dedup();
    assert_eq!(identifiers.len(), 2);
}
