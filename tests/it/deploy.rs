//! The files for deployment pass the checks of the tools that read them, where these are installed.

use std::ffi::OsStr;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser as _;
use simusage::cli::Cli;
use simusage::config::{Config, Overrides};

use crate::support::pooler::{free_port, installed_or_skip};
use crate::support::program::load_inventory;
use crate::support::server::{Server, get_from};
use crate::support::{TestDatabase, config};

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

/// Runs a tool, which must succeed, and returns what it printed. `None` if it is not installed.
fn run(tool: &str, arguments: &[&OsStr], input: &str) -> Option<String> {
    let program = installed_or_skip(tool, &format!("the check by {tool}"))?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed).into_owned();
    assert!(output.status.success(), "{tool} {arguments:?}: {printed}");
    Some(printed)
}

#[test]
fn the_systemd_units_are_valid_and_hardened() {
    for name in ["simusage-serve.service", "simusage-ingest.service"] {
        let text = std::fs::read_to_string(path("deploy/systemd").join(name)).unwrap();
        let (_, line) = text.split_once("ExecStart=").unwrap();
        let command = line.replace("\\\n", " ");
        let command = command.lines().next().unwrap();
        Cli::try_parse_from(command.split_whitespace()).unwrap();
        // The program of the unit must exist.
        let folder = tempfile::tempdir().unwrap();
        let unit = folder.path().join(name);
        let here = text.replace("/usr/local/bin/simusage", env!("CARGO_BIN_EXE_simusage"));
        std::fs::write(&unit, here).unwrap();
        let verify = ["verify".as_ref(), unit.as_os_str()];
        if let Some(printed) = run("systemd-analyze", &verify, "") {
            assert!(!printed.contains(name), "{printed}");
            let threshold = ["security", "--offline=true", "--threshold=15"].map(OsStr::new);
            run(
                "systemd-analyze",
                &[&threshold[..], &[unit.as_os_str()]].concat(),
                "",
            );
        }
    }
}

#[test]
fn the_kubernetes_manifests_match_the_schemas() {
    let file = path("deploy/kubernetes/simusage.yaml");
    // It contains the schemas of Kubernetes' own resources.
    run("kubectl-validate", &[file.as_os_str()], "");
}

#[test]
fn the_settings_of_the_kubernetes_manifests_exist() {
    let text = std::fs::read_to_string(path("deploy/kubernetes/simusage.yaml")).unwrap();
    let settings = text.lines().filter_map(|line| {
        let (name, value) = line.trim().split_once(": ")?;
        name.starts_with("SIMUSAGE_")
            .then(|| (name.to_owned(), value.trim_matches('"').to_owned()))
    });
    let settings: Vec<_> = settings.collect();
    assert!(settings.len() > 3);
    let file = path("config.toml");
    let loaded = Config::load(Some(&file), settings, &Overrides::default());
    assert_ne!(loaded.unwrap(), config("postgresql://u@h/d"));
}

#[test]
fn the_workflows_pass_actionlint() {
    let folder = path(".github/workflows");
    let files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let files: Vec<&OsStr> = files
        .iter()
        .map(PathBuf::as_path)
        .map(Path::as_os_str)
        .collect();
    run("actionlint", &files, "");
}

#[test]
fn the_prometheus_rules_fire_when_they_should() {
    let check = ["check".as_ref(), "rules".as_ref()];
    let rules = path("deploy/prometheus/simusage.rules.yml");
    run("promtool", &[&check[..], &[rules.as_os_str()]].concat(), "");
    let test = ["test".as_ref(), "rules".as_ref()];
    let tests = path("deploy/prometheus/simusage.rules.test.yml");
    run("promtool", &[&test[..], &[tests.as_os_str()]].concat(), "");
}

#[test]
fn the_grafana_and_prometheus_rules_agree() {
    let read = |file: &str| std::fs::read_to_string(path(file)).unwrap();
    let grafana = read("grafana/provisioning/alerting/simusage.yml");
    let prometheus = read("deploy/prometheus/simusage.rules.yml");
    for expression in [
        "sum(simusage_ingest_lag_records)",
        "sum(rate(simusage_ingest_rejected_total[10m])) / sum(rate(simusage_ingest_records_total[10m]))",
    ] {
        assert!(
            grafana.contains(expression) && prometheus.contains(expression),
            "{expression}"
        );
    }
}

#[tokio::test]
async fn promtool_accepts_the_metrics_of_serve() {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    let server = Server::start(database.url());
    server.get("/api/v1/inventory");
    let answer = server.get("/metrics");
    let (_, metrics) = answer.split_once("\r\n\r\n").unwrap();
    if let Some(printed) = run("promtool", &["check".as_ref(), "metrics".as_ref()], metrics) {
        assert_eq!(printed, "", "{metrics}");
    }
}

/// A Prometheus, killed when dropped.
struct Prometheus(Child);

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Both fail if it has already exited.
        let _ = (self.0.kill(), self.0.wait());
    }
}

#[tokio::test]
async fn prometheus_scrapes_serve_and_evaluates_the_rules() {
    let Some(program) = installed_or_skip("prometheus", "a scrape by Prometheus") else {
        return;
    };
    let database = TestDatabase::migrated().await;
    let server = Server::start(database.url());
    server.get("/api/v1/inventory");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("prometheus.yml");
    let rules = path("deploy/prometheus/simusage.rules.yml");
    let text = format!(
        "global: {{scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms}}\n\
         rule_files: ['{}']\n\
         scrape_configs: [{{job_name: simusage-serve, static_configs: [{{targets: ['{}']}}]}}]\n",
        rules.display(),
        server.address()
    );
    std::fs::write(&file, text).unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let child = Command::new(program)
        .arg(format!("--config.file={}", file.display()))
        .arg(format!(
            "--storage.tsdb.path={}",
            folder.path().join("data").display()
        ))
        .arg(format!("--web.listen-address={address}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _prometheus = Prometheus(child);
    let requests = "sum(simusage_http_request_duration_seconds_count{job=\"simusage-serve\"})>0";
    let query = format!("/api/v1/query?query={}", requests.replace('"', "%22"));
    let deadline = Instant::now() + Duration::from_mins(1);
    for (path, expected) in [
        (&*query, "\"value\""),
        ("/api/v1/rules", "\"health\":\"ok\""),
    ] {
        loop {
            let answer = TcpStream::connect(&address)
                .map(|_| get_from(&address, path))
                .unwrap_or_default();
            if answer.contains(expected) {
                assert!(!answer.contains("\"health\":\"err\""), "{answer}");
                break;
            }
            assert!(Instant::now() < deadline, "{path}: {answer}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}
