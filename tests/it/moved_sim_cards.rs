//! Who sees a SIM card that moved to another organization, or whose assignment was corrected: the same
//! in lists, series, the inventory and exports.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use simusage::db;

use crate::support::TestDatabase;
use crate::support::api::Api;
use crate::support::program::{simusage, simusage_with_input};
use crate::support::usage::Files;

/// The bytes of each SIM card.
type Usage = BTreeMap<String, i64>;

struct Caller {
    name: &'static str,
    token: String,
    sees: Usage,
    inventory: Vec<Value>,
}

fn store(url: &str, records: &[(&str, i64, &str)]) {
    let line = |&(sim_card, bytes, date): &(&str, i64, &str)| {
        json!({"sim-card-id": sim_card, "bytes-used": bytes, "date": date}).to_string()
    };
    let lines: Vec<_> = records.iter().map(line).collect();
    let run = simusage_with_input(url, &["ingest", "-"], &(lines.join("\n") + "\n"));
    assert_eq!(run.status, 0, "{run:?}");
}

fn load(url: &str, files: &Files, rows: &str) {
    let file = files.write(
        "inventory.csv",
        format!("sim-card-id,org-id,valid-from\n{rows}"),
    );
    let run = simusage(url, &["ingest", "--inventory", &file]);
    assert_eq!(run.status, 0, "{run:?}");
}

/// Asserts that every answer shows a caller the same SIM cards.
async fn assert_sees(api: &Api, caller: &Caller, state: &str) {
    let Caller {
        name,
        token,
        sees,
        inventory,
    } = caller;
    let ok = async |path: &str| {
        let answer = api.get_as(token, path).await;
        assert_eq!(
            answer.status, 200,
            "{name}, {state}, {path}: {}",
            answer.text
        );
        answer
    };
    let list = ok("/api/v1/usage/simcards?sort=id").await.body;
    let listed: Usage = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| {
            (
                item["simcard"].as_str().unwrap().to_owned(),
                item["bytes-used-total"].as_i64().unwrap(),
            )
        })
        .collect();
    assert_eq!(listed, *sees, "{name}, {state}");
    let export = ok("/api/v1/usage/simcards?sort=id&format=csv").await.text;
    let exported: Usage = export
        .lines()
        .skip(1)
        .map(|line| {
            let mut fields = line.split(',');
            (
                fields.next().unwrap().to_owned(),
                fields.next().unwrap().parse().unwrap(),
            )
        })
        .collect();
    assert_eq!(exported, *sees, "{name}, {state}");
    let assignments = ok("/api/v1/inventory").await.body["items"].take();
    assert_eq!(assignments, json!(inventory), "{name}, {state}");
    for sim_card in ["1", "2", "3", "4", "5"] {
        // Few buckets, and so many that they are calculated in another thread.
        let widths = ["1month", "1hour"];
        for every in &widths[usize::from(state != "closed")..] {
            let path = format!(
                "/api/v1/simcard/{sim_card}/usage?start=2020-01-01&end=2020-03-31&every={every}&size=1"
            );
            let is_assigned = inventory
                .iter()
                .any(|assignment| assignment["simcard"] == sim_card);
            if sees.contains_key(sim_card) || is_assigned {
                let bytes = ok(&path).await.body["bytes-used-total"].as_i64().unwrap();
                assert_eq!(
                    bytes,
                    sees.get(sim_card).copied().unwrap_or_default(),
                    "{name}, {state}, {path}"
                );
            } else {
                assert_eq!(
                    api.get_as(token, &path).await.status,
                    404,
                    "{name}, {state}, {path}"
                );
            }
        }
    }
}

#[actix_web::test]
async fn a_caller_sees_what_is_assigned_to_it_and_what_was_stored_for_it() {
    let (database, files) = (TestDatabase::migrated().await, Files::new());
    let url = database.url();
    load(url, &files, "1,a,\n2,a,\n3,a,\n4,b,\n5,a,\n");
    let day = "2020-02-01T12:00:00Z";
    store(
        url,
        &[
            ("1", 1, day),
            ("2", 20, day),
            ("3", 300, day),
            ("4", 4_000, day),
        ],
    );
    // The second moves in March, the third always belonged to b, and the fifth, without usage, too.
    load(url, &files, "2,b,2020-03-01\n3,b,\n5,b,\n");
    let later = "2020-03-01T12:00:00Z";
    store(
        url,
        &[
            ("1", 1, later),
            ("2", 20, later),
            ("3", 300, later),
            ("4", 4_000, later),
        ],
    );
    let usage = |usage: &[(&str, i64)]| -> Usage {
        usage
            .iter()
            .map(|&(sim_card, bytes)| (sim_card.to_owned(), bytes))
            .collect()
    };
    let march = Some("2020-03-01T00:00:00Z");
    let assignment = |simcard: &str,
                      organization: &str,
                      from: Option<&str>,
                      until: Option<&str>| json!({"simcard": simcard, "organization": organization, "valid-from": from, "valid-until": until});
    let of_a = [
        assignment("1", "a", None, None),
        assignment("2", "a", None, march),
    ];
    let of_b = [
        assignment("2", "b", march, None),
        assignment("3", "b", None, None),
        assignment("4", "b", None, None),
        assignment("5", "b", None, None),
    ];
    let all = [&of_a[..], &of_b].concat();
    let everything = usage(&[("1", 2), ("2", 40), ("3", 600), ("4", 8_000)]);
    let mut callers = vec![];
    for (name, organizations, sees, inventory) in [
        ("all", &[][..], everything.clone(), all.clone()),
        ("both", &["a", "b"], everything, all),
        (
            "a",
            &["a"],
            usage(&[("1", 2), ("2", 20), ("3", 300)]),
            of_a.to_vec(),
        ),
        (
            "b",
            &["b"],
            usage(&[("2", 20), ("3", 300), ("4", 8_000)]),
            of_b.to_vec(),
        ),
    ] {
        let mut arguments = vec!["token", "create", name];
        for organization in organizations {
            arguments.extend(["--organization", organization]);
        }
        let run = simusage(url, &arguments);
        assert_eq!(run.status, 0, "{run:?}");
        let token = run.stdout.trim().to_owned();
        callers.push(Caller {
            name,
            token,
            sees,
            inventory,
        });
    }
    let api = Api::new(&database.config()).await;
    let mut connection = database.connect().await;
    for state in [
        "in a closed page",
        "closed",
        "after retention has dropped days",
    ] {
        if state == "closed" {
            db::close_period(&mut connection, None).await.unwrap();
        } else if state.starts_with("after") {
            // As if there had been earlier days.
            let dropped =
                "update usage_levels set kept_from = '2020-01-01' where level = 'sim_card_usage'";
            connection.batch_execute(dropped).await.unwrap();
            // Totals over all time need the days that were dropped.
            let unseen = "/api/v1/simcard/3/usage?start=2020-02-01&end=2020-02-02&every=1day";
            for (caller, bytes) in callers[2..].iter().zip([300, 0]) {
                let answer = api.get_as(&caller.token, unseen).await;
                assert_eq!(answer.body["bytes-used-total"], bytes, "{}", caller.name);
            }
            let hidden = unseen.replace("/3/", "/4/");
            assert_eq!(api.get_as(&callers[2].token, &hidden).await.status, 404);
            break;
        }
        for caller in &callers {
            assert_sees(&api, caller, state).await;
        }
    }
}
