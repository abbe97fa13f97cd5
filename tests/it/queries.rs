//! Every statement in `sql/` is valid for the schema and has the expected types. The migrations
//! are tested by applying them.

use std::collections::BTreeMap;
use std::path::Path;

use crate::support::TestDatabase;

const FRESHNESS: &str = "version int8, inventory_version int8, complete_through timestamptz, \
                         last_ingested_at timestamptz";
const SERIES: &str = "total int8, all_bytes int8, version int8, inventory_version int8, \
                      complete_through timestamptz, last_ingested_at timestamptz, number int4, bytes int8, records int8";
const TOTALS: &str = "total int8, all_bytes int8, version int8, inventory_version int8, \
                      complete_through timestamptz, last_ingested_at timestamptz, id text, bytes int8, large_bytes text, records int8";

const SOURCE: &str = "id int8, name text, position int8, line int8, prefix_hash bytea, batches int8, stored int8, \
                      rejected int8, updated_at timestamptz";
const SIMILAR_FILE: &str = "id int8, name text, position int8, line int8, prefix_hash bytea, batches int8, \
                            stored int8, rejected int8, updated_at timestamptz, digests bytea, end_lines _int8, \
                            end_digests _int8, has_same_path bool, is_claimed bool, found_hashes _int8, \
                            found_lines _int8";

/// File, parameter types, columns.
const EXPECTED: [(&str, &str, &str); 125] = [
    ("functions/archive_records.sql", "", ""),
    ("functions/begin_posting.sql", "", ""),
    ("functions/check_kept.sql", "", ""),
    ("functions/close_level.sql", "", ""),
    ("functions/drop_archived.sql", "", ""),
    ("functions/drop_expired.sql", "", ""),
    ("functions/drop_merged.sql", "", ""),
    ("functions/end_page.sql", "", ""),
    ("functions/end_period.sql", "", ""),
    ("functions/feed_of.sql", "", ""),
    ("functions/feeds.sql", "", ""),
    ("functions/in_organizations.sql", "", ""),
    ("functions/inventory_differences.sql", "", ""),
    ("functions/is_posting_open.sql", "", ""),
    ("functions/organization_list.sql", "", ""),
    ("functions/organization_parts.sql", "", ""),
    ("functions/posting_runs.sql", "", ""),
    ("functions/sees_sim_card.sql", "", ""),
    ("functions/sim_card_list.sql", "", ""),
    ("functions/sim_card_parts.sql", "", ""),
    ("functions/sim_card_runs.sql", "", ""),
    ("functions/time_within.sql", "", ""),
    ("functions/unused_since.sql", "", ""),
    ("functions/usage_by_organization.sql", "", ""),
    ("functions/usage_freshness.sql", "", ""),
    ("functions/usage_series.sql", "", ""),
    ("ingest/add_organizations.sql", "_text 1", ""),
    (
        "ingest/add_posting_days.sql",
        "int8 1, _date 1, _int8 1, bool 2",
        "",
    ),
    ("ingest/add_source.sql", "text 3", ""),
    (
        "ingest/advance_source.sql",
        "int8 5, bytea 1, text 1, int8 3, timestamptz 1",
        "",
    ),
    ("ingest/allow_changes.sql", "", "set_config text"),
    (
        "ingest/archive_records.sql",
        "int8 1",
        "archive_records bool",
    ),
    ("ingest/begin_posting.sql", "", "posting int8"),
    ("ingest/claim_source.sql", "int8 1", "claimed bool"),
    (
        "ingest/close_level.sql",
        "text 1, int8 1",
        "close_level bool",
    ),
    ("ingest/copy_assignments.sql", "", ""),
    ("ingest/copy_bulk.sql", "", ""),
    ("ingest/copy_recent.sql", "", ""),
    ("ingest/copy_rejected_records.sql", "", ""),
    ("ingest/copy_sim_cards.sql", "", ""),
    ("ingest/count_rejected.sql", "_int8 1", "count int8"),
    ("ingest/decide_span.sql", "int8 1, bool 1", ""),
    ("ingest/delete_old_rejected.sql", "int8 2", "count int8"),
    ("ingest/delete_placeholders.sql", "int8 1", ""),
    ("ingest/delete_rejected.sql", "_int8 1", "count int8"),
    ("ingest/delete_unfinished_line.sql", "int8 2", ""),
    (
        "ingest/drop_old.sql",
        "",
        "archived int8, merged int8, expired text",
    ),
    ("ingest/end_page.sql", "", "boundary int8"),
    ("ingest/end_period.sql", "", "boundary int8"),
    (
        "ingest/find_files.sql",
        "text 1, int8 1, _int8 1, int8 1",
        SIMILAR_FILE,
    ),
    (
        "ingest/find_records.sql",
        "_int8 1",
        "hash int8, line int8, files int8",
    ),
    ("ingest/find_source.sql", "text 2", SOURCE),
    ("ingest/find_whole_file.sql", "int8 2", SOURCE),
    (
        "ingest/has_ids.sql",
        "int4 1, text 1, int4 1, text 1",
        "has_ids bool",
    ),
    ("ingest/inventory_index.sql", "", ""),
    (
        "ingest/inventory_version.sql",
        "",
        "version int8, assignments int8",
    ),
    ("ingest/is_posting_open.sql", "int8 1", "is_open bool"),
    (
        "ingest/level_periods.sql",
        "text 1, int8 1",
        "period int8, is_large bool, is_detailed bool",
    ),
    ("ingest/lock_files.sql", "", "pg_advisory_xact_lock void"),
    (
        "ingest/lock_inventory.sql",
        "",
        "entries int8, has_sim_cards bool",
    ),
    (
        "ingest/lock_source.sql",
        "int8 1",
        "position int8, batches int8, writer int8",
    ),
    (
        "ingest/missing_chunks.sql",
        "int8 1",
        "period int8, bulk bool, recent bool",
    ),
    (
        "ingest/move_assignments.sql",
        "_int4 1, _timestamptz 1, _int4 1",
        "",
    ),
    ("ingest/move_partition.sql", "int8 4, text 1", "moved bool"),
    ("ingest/newest_day.sql", "", "day date"),
    (
        "ingest/newest_ids.sql",
        "",
        "sim_card int4, iccid text, organization int4, organization_name text",
    ),
    ("ingest/next_span.sql", "", "span int8, is_spread bool"),
    (
        "ingest/oldest_kept.sql",
        "",
        "kept_from date, keep_days int4",
    ),
    (
        "ingest/open_page.sql",
        "",
        "closed_before int8, records int8",
    ),
    (
        "ingest/open_periods.sql",
        "",
        "records int8, bulk int8, seconds float8",
    ),
    ("ingest/organization_ids.sql", "_text 1", "id int4"),
    ("ingest/partition_topic.sql", "int8 1", "topic_id text"),
    (
        "ingest/refreshes_in_batches.sql",
        "",
        "refreshes_in_batches bool",
    ),
    ("ingest/reject_again.sql", "_int8 1, _text 3, text 1", ""),
    ("ingest/release_source.sql", "int8 1", "released bool"),
    (
        "ingest/remove_assignments.sql",
        "_int4 1, _timestamptz 1",
        "",
    ),
    ("ingest/remove_run.sql", "int8 1", ""),
    ("ingest/reset_source.sql", "int8 3", ""),
    ("ingest/set_closing_settings.sql", "", "set_config text"),
    ("ingest/set_copy_settings.sql", "", "set_config text"),
    (
        "ingest/set_fingerprint.sql",
        "int8 1, bytea 1, int8 2, _int8 2, int8 1",
        "",
    ),
    ("ingest/set_grouping.sql", "text 1", "set_config text"),
    ("ingest/set_partition_topic.sql", "int8 1, text 1", ""),
    (
        "ingest/source_counts.sql",
        "int8 1",
        "stored int8, rejected int8",
    ),
    (
        "ingest/stored_assignments.sql",
        "_text 1",
        "number int8, sim_card_id int4, valid_from timestamptz, organization_id int4, is_entry bool",
    ),
    (
        "ingest/take_rejected.sql",
        "int8 3",
        "id int8, source text, line int8, format text, header bytea, raw bytea",
    ),
    ("ingest/take_sim_card_ids.sql", "int8 1", "last int8"),
    (
        "ingest/use_indexes.sql",
        "",
        "hashjoin text, mergejoin text",
    ),
    (
        "inventory/differences.sql",
        "",
        "stored text, current text, sim_cards int8, records int8, bytes text",
    ),
    (
        "queries/feeds.sql",
        "",
        "feed text, complete_through timestamptz, last_ingested_at timestamptz, is_expected bool, is_live bool, \
         usage_complete_through timestamptz",
    ),
    ("queries/freshness.sql", "timestamptz 2", FRESHNESS),
    (
        "queries/inventory.sql",
        "_int4 1, text 3, timestamptz 1, int8 3, text 1, int8 1",
        "total int8, inventory_version int8, sim_card text, organization text, valid_from timestamptz, \
         valid_until timestamptz",
    ),
    (
        "queries/organization_totals.sql",
        "_int4 1, _timestamptz 3, int4 1, text 2, int8 2, timestamptz 2",
        TOTALS,
    ),
    (
        "queries/simcard_totals.sql",
        "_int4 1, text 1, _timestamptz 2, int4 1, text 2, int8 2, timestamptz 2",
        TOTALS,
    ),
    (
        "queries/subject_exists.sql",
        "text 2, _int4 1",
        "is_visible bool",
    ),
    (
        "queries/usage_series.sql",
        "text 2, _int4 1, _timestamptz 4, int4 2, int8 2, timestamptz 2, _int8 3",
        SERIES,
    ),
    (
        "schema_history/applied.sql",
        "",
        "number int4, name text, checksum text",
    ),
    ("schema_history/create.sql", "", ""),
    ("schema_history/create_functions.sql", "", ""),
    ("schema_history/exists.sql", "", "exists bool"),
    ("schema_history/lock.sql", "int8 1", "pg_advisory_lock void"),
    ("schema_history/record.sql", "int4 1, text 3", ""),
    ("schema_history/record_function.sql", "text 3", ""),
    (
        "schema_history/server.sql",
        "",
        "available text, installed text, license text, database text, encoding text, is_standby bool, is_read_only bool",
    ),
    ("schema_history/signatures.sql", "text 1", "signature text"),
    ("schema_history/try_lock.sql", "int8 1", "taken bool"),
    (
        "schema_history/version.sql",
        "_text 2",
        "number int4, outdated _text",
    ),
    (
        "session/keepalives.sql",
        "",
        "set_config text, set_config text, set_config text",
    ),
    (
        "session/pooling.sql",
        "",
        "pid int4, is_renamed bool, is_embedded bool",
    ),
    ("session/settings.sql", "", "set_config text"),
    ("session/transaction_settings.sql", "", "set_config text"),
    ("settings/current.sql", "", "level text, keep_days int4"),
    (
        "settings/feed_patterns.sql",
        "",
        "feed text, silent_after_hours int4",
    ),
    (
        "settings/reader_exists.sql",
        "text 1",
        "exists bool, may_create bool, command text",
    ),
    (
        "settings/reader_lacks.sql",
        "text 1, _text 2",
        "reader text, lacks bool, subject text, command text",
    ),
    ("settings/reader_name.sql", "", "name text"),
    ("settings/set_feed_patterns.sql", "_text 1, _int4 1", ""),
    ("settings/set_retention.sql", "text 1, int4 1", ""),
    ("settings/update_feeds.sql", "", ""),
    (
        "tokens/add.sql",
        "text 1, bytea 1, bool 1, timestamptz 1",
        "id int4",
    ),
    ("tokens/bind.sql", "int4 1, _text 1", "name text"),
    ("tokens/cursor_key.sql", "", "key bytea"),
    (
        "tokens/list.sql",
        "",
        "name text, organizations _text, created_at timestamptz, expires_at timestamptz, revoked_at timestamptz",
    ),
    (
        "tokens/load.sql",
        "",
        "id int4, name text, hash bytea, organizations _int4, expires_at timestamptz, revoked bool",
    ),
    ("tokens/revoke.sql", "text 1", ""),
];

/// The names with counts of equal neighbours: "text 1, int8 2".
fn counted<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut runs: Vec<(&str, usize)> = Vec::new();
    for name in names {
        match runs.last_mut() {
            Some((last, count)) if *last == name => *count += 1,
            _ => runs.push((name, 1)),
        }
    }
    runs.iter()
        .map(|(name, count)| format!("{name} {count}"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The statements in `sql/` by file, without the migrations.
fn statements() -> BTreeMap<String, String> {
    let sql = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql");
    let mut statements = BTreeMap::new();
    for folder in std::fs::read_dir(&sql)
        .unwrap()
        .map(|entry| entry.unwrap().path())
    {
        if folder.ends_with("migrations") {
            continue;
        }
        for file in std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
        {
            let name = file
                .strip_prefix(&sql)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            statements.insert(name, std::fs::read_to_string(&file).unwrap());
        }
    }
    statements
}

#[tokio::test]
async fn every_statement_has_the_expected_types() {
    let database = TestDatabase::migrated().await;
    let connection = database.connect().await;
    let mut actual = vec![];
    for (file, text) in statements() {
        let statement = connection
            .prepare(&text)
            .await
            .unwrap_or_else(|error| panic!("{file}: {error:?}"));
        let parameters = counted(
            statement
                .params()
                .iter()
                .map(tokio_postgres::types::Type::name),
        );
        let columns: Vec<_> = statement
            .columns()
            .iter()
            .map(|column| format!("{} {}", column.name(), column.type_().name()))
            .collect();
        actual.push((file, parameters, columns.join(", ")));
    }
    let actual: Vec<_> = actual
        .iter()
        .map(|(file, parameters, columns)| (&**file, &**parameters, &**columns))
        .collect();
    for (actual, expected) in actual.iter().zip(&EXPECTED) {
        assert_eq!(actual, expected);
    }
    assert_eq!(actual.len(), EXPECTED.len());
}

#[tokio::test]
async fn the_reader_role_can_run_every_statement_of_serve() {
    let database = TestDatabase::migrated().await;
    let mut connection = database.connect().await;
    let reader = database.reader().await;
    let asked = |file: &str| {
        file.starts_with("queries/")
            || [
                "tokens/load.sql",
                "tokens/cursor_key.sql",
                "schema_history/version.sql",
            ]
            .contains(&file)
    };
    for (file, text) in statements().into_iter().filter(|(file, _)| asked(file)) {
        let parameters = connection.prepare(&text).await.unwrap().params().len();
        let arguments = if parameters == 0 {
            String::new()
        } else {
            format!("({})", vec!["null"; parameters].join(","))
        };
        let transaction = connection.transaction().await.unwrap();
        transaction
            .batch_execute(&format!("set local role {reader}"))
            .await
            .unwrap();
        transaction
            .batch_execute(&format!("prepare asked as {text}"))
            .await
            .unwrap();
        // `explain` checks the privileges without running the statement.
        let explained = transaction
            .batch_execute(&format!("explain execute asked{arguments}"))
            .await;
        explained.unwrap_or_else(|error| panic!("{file}: {error:?}; is it in db::reader?"));
        transaction.batch_execute("deallocate asked").await.unwrap();
        let forbidden = transaction
            .batch_execute("explain select * from rejected_records")
            .await
            .unwrap_err();
        assert_eq!(forbidden.code().unwrap().code(), "42501");
        transaction.rollback().await.unwrap();
    }
}
