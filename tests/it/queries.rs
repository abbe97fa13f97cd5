//! Every statement in `sql/queries` fits the schema, and has the types that its header promises.

use std::collections::BTreeMap;
use std::path::Path;

use crate::support::TestDatabase;

const SERIES: &str = "total int8, all_bytes int8, bucket timestamptz, bytes int8, records int8";
const TOTALS: &str = "total int8, all_bytes int8, id text, bytes int8, records int8";

/// File, parameter types, columns.
const EXPECTED: [(&str, &str, &str); 8] = [
    ("inventory.sql", "int8 2", "total int8, sim_card text, organization text, valid_from timestamptz"),
    ("organization_totals.sql", "timestamptz 6, int8 2", TOTALS),
    ("organization_usage_daily.sql", "text 1, timestamptz 6, int8 2", SERIES),
    ("organization_usage_hourly.sql", "text 1, timestamptz 4, int8 2", SERIES),
    ("ready.sql", "", "bucket timestamptz"),
    ("simcard_totals.sql", "text 1, timestamptz 6, int8 2", TOTALS),
    ("simcard_usage_daily.sql", "text 1, timestamptz 6, int8 2", SERIES),
    ("simcard_usage_hourly.sql", "text 1, timestamptz 4, int8 2", SERIES),
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

#[tokio::test]
async fn every_statement_has_the_types_that_are_promised() {
    let database = TestDatabase::migrated().await;
    let connection = database.connect().await;
    let expected: BTreeMap<_, _> =
        EXPECTED.into_iter().map(|(file, parameters, columns)| (file.to_owned(), (parameters, columns))).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/queries");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        let Some((parameters, columns)) = expected.get(&file) else { panic!("{file} has no expected types") };
        let text = std::fs::read_to_string(&path).unwrap();
        let statement = connection.prepare(&text).await.unwrap_or_else(|error| panic!("{file}: {error:?}"));
        assert_eq!(counted(statement.params().iter().map(tokio_postgres::types::Type::name)), *parameters, "{file}");
        let actual: Vec<_> =
            statement.columns().iter().map(|column| format!("{} {}", column.name(), column.type_().name())).collect();
        assert_eq!(actual.join(", "), *columns, "{file}");
        found.push(file);
    }
    found.sort();
    assert_eq!(found, expected.into_keys().collect::<Vec<_>>());
}
