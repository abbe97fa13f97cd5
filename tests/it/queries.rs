//! Every statement of `sql/` fits the schema, and has the types that its header promises. The migrations prove
//! themselves by being applied.

use std::collections::BTreeMap;
use std::path::Path;

use crate::support::TestDatabase;

const SERIES: &str = "total int8, all_bytes int8, bucket timestamptz, bytes int8, records int8";
const TOTALS: &str = "total int8, all_bytes int8, id text, bytes int8, records int8";

/// File, parameter types, columns.
const EXPECTED: [(&str, &str, &str); 29] = [
    ("ingest/add_organizations.sql", "_text 1", ""),
    ("ingest/add_sim_cards.sql", "_text 1", ""),
    ("ingest/assign_sim_cards.sql", "_text 2, _timestamptz 1", ""),
    ("ingest/copy_rejected_records.sql", "", ""),
    ("ingest/copy_usage_records.sql", "", ""),
    (
        "ingest/inventory_directory.sql",
        "",
        "iccid text, sim_card_id int4, valid_from timestamptz, organization_id int4",
    ),
    ("ledger/applied.sql", "", "number int4, name text, checksum text"),
    ("ledger/create.sql", "", ""),
    ("ledger/exists.sql", "", "exists bool"),
    ("ledger/lock.sql", "int8 1", "pg_advisory_lock void"),
    ("ledger/newest.sql", "", "number int4"),
    ("ledger/record.sql", "int4 1, text 3", ""),
    ("ledger/server.sql", "", "available text, installed text, license text"),
    ("ledger/try_lock.sql", "int8 1", "taken bool"),
    ("queries/inventory.sql", "int8 2", "total int8, sim_card text, organization text, valid_from timestamptz"),
    ("queries/organization_totals.sql", "timestamptz 6, int8 2", TOTALS),
    ("queries/organization_usage_daily.sql", "text 1, timestamptz 6, int8 2", SERIES),
    ("queries/organization_usage_hourly.sql", "text 1, timestamptz 4, int8 2", SERIES),
    ("queries/simcard_totals.sql", "text 1, timestamptz 6, int8 2", TOTALS),
    ("queries/simcard_usage_daily.sql", "text 1, timestamptz 6, int8 2", SERIES),
    ("queries/simcard_usage_hourly.sql", "text 1, timestamptz 4, int8 2", SERIES),
    ("settings/add_columnstore_policy.sql", "text 1, int8 1", ""),
    ("settings/add_refresh_policy.sql", "text 1, int8 2", "add_continuous_aggregate_policy int4"),
    ("settings/add_retention_policy.sql", "text 1, int8 1", "add_retention_policy int4"),
    ("settings/current.sql", "", "relation text, setting text, seconds int8"),
    ("settings/remove_columnstore_policy.sql", "text 1", ""),
    ("settings/remove_refresh_policy.sql", "text 1", "remove_continuous_aggregate_policy void"),
    ("settings/remove_retention_policy.sql", "text 1", "remove_retention_policy void"),
    ("settings/set_chunk_interval.sql", "text 1, int8 1", "set_chunk_time_interval void"),
];

/// The names, with equal neighbours counted: "text 1, int8 2".
fn counted<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut runs: Vec<(&str, usize)> = Vec::new();
    for name in names {
        match runs.last_mut() {
            Some((last, count)) if *last == name => *count += 1,
            _ => runs.push((name, 1)),
        }
    }
    runs.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

/// The files of `sql/` by their path in it, but for the migrations.
fn statements() -> BTreeMap<String, String> {
    let sql = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql");
    let mut statements = BTreeMap::new();
    for folder in std::fs::read_dir(&sql).unwrap().map(|entry| entry.unwrap().path()) {
        if folder.ends_with("migrations") {
            continue;
        }
        for file in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = file.strip_prefix(&sql).unwrap().to_str().unwrap().to_owned();
            statements.insert(name, std::fs::read_to_string(&file).unwrap());
        }
    }
    statements
}

#[tokio::test]
async fn every_statement_has_the_types_that_are_promised() {
    let database = TestDatabase::migrated().await;
    let connection = database.connect().await;
    let mut actual = vec![];
    for (file, text) in statements() {
        let statement = connection.prepare(&text).await.unwrap_or_else(|error| panic!("{file}: {error:?}"));
        let parameters = counted(statement.params().iter().map(tokio_postgres::types::Type::name));
        let columns: Vec<_> =
            statement.columns().iter().map(|column| format!("{} {}", column.name(), column.type_().name())).collect();
        actual.push((file, parameters, columns.join(", ")));
    }
    let actual: Vec<_> =
        actual.iter().map(|(file, parameters, columns)| (&**file, &**parameters, &**columns)).collect();
    assert_eq!(actual, EXPECTED);
}
