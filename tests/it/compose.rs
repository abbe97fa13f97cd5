//! docker-compose.yml is consistent with the command line, the settings and the other files of the
//! stack.

use std::collections::{BTreeMap, BTreeSet};

use clap::Parser as _;
use serde_json::Value;
use simusage::cli::Cli;
use simusage::commands::{Command, GenerateCommand};
use simusage::config::{Config, Overrides};

use crate::support::stack::{environment, items, path, services, text, texts, yaml};

/// Host and port of an address such as `kafka:9093`.
fn host_and_port(address: &str) -> (&str, u16) {
    let (host, port) = address.rsplit_once(':').unwrap();
    (host, port.parse().unwrap())
}

/// The simusage command lines that a service runs.
fn command_lines(service: &Value) -> Vec<Vec<String>> {
    let words = |line: &str| {
        line.split_whitespace()
            .take_while(|&word| word != ">")
            .map(str::to_owned)
            .collect()
    };
    if service["entrypoint"].is_null() {
        let arguments = texts(&service["command"]).into_iter().map(str::to_owned);
        return vec![
            std::iter::once("simusage".to_owned())
                .chain(arguments)
                .collect(),
        ];
    }
    assert_eq!(texts(&service["entrypoint"])[0], "bash");
    let script = service["command"][0].as_str().unwrap();
    script
        .lines()
        .inspect(|line| assert!(line.starts_with("simusage "), "{line}"))
        .map(words)
        .collect()
}

/// The parsed command lines of each service that runs simusage.
fn commands_by_service() -> BTreeMap<String, Vec<Command>> {
    let runs_simusage = |service: &Value| service["image"] == "simusage";
    let parse = |line: Vec<String>| {
        let cli = Cli::try_parse_from(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
        cli.check()
            .unwrap_or_else(|error| panic!("{line:?}: {error}"));
        cli.command
    };
    let services = services()
        .into_iter()
        .filter(|(_, service)| runs_simusage(service));
    services
        .map(|(name, service)| {
            (
                name,
                command_lines(&service).into_iter().map(parse).collect(),
            )
        })
        .collect()
}

#[test]
fn every_command_line_parses_and_the_services_share_a_topic() {
    let commands = commands_by_service();
    let names: Vec<&str> = commands.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["generator", "ingest", "migrate", "sample-data", "serve"]
    );
    assert!(matches!(commands["migrate"][..], [Command::Migrate(_)]));
    assert!(matches!(
        commands["sample-data"][..],
        [Command::Generate(_), Command::Ingest(_)]
    ));
    let [Command::Generate(GenerateCommand::Usage(generator))] = &commands["generator"][..] else {
        panic!("{commands:?}")
    };
    let [Command::Ingest(ingest)] = &commands["ingest"][..] else {
        panic!("{commands:?}")
    };
    assert!(generator.follow);
    assert_eq!(
        (&generator.kafka, &generator.topic),
        (&ingest.kafka, &ingest.topic)
    );

    // The topic is created first, and the brokers advertise the address that the services use.
    let (services, topic) = (services(), ingest.topic.clone().unwrap());
    assert!(
        texts(&services["topic"]["command"])
            .windows(2)
            .any(|pair| pair == ["--topic", &topic])
    );
    let brokers = ingest.kafka.clone().unwrap();
    let listeners = environment(&services["kafka"])["KAFKA_ADVERTISED_LISTENERS"].clone();
    assert!(
        listeners
            .split(',')
            .any(|listener| listener.ends_with(&format!("//{brokers}"))),
        "{listeners}"
    );
    assert!(services.contains_key(host_and_port(&brokers).0));

    let dockerfile = text("Dockerfile");
    assert!(
        dockerfile.contains(&format!(" {}\n", generator.inventory.display())),
        "the image has the inventory"
    );
}

#[test]
fn every_variable_is_a_setting_and_every_address_is_a_service() {
    let services = services();
    for (name, service) in services
        .iter()
        .filter(|(_, service)| service["image"] == "simusage")
    {
        let variables = environment(service);
        let known =
            |variable: &String| variable.starts_with("SIMUSAGE_") || variable == "DATABASE_URL";
        assert!(variables.keys().all(known), "{name}: {variables:?}");
        let defaults = path("config.toml");
        let config = Config::load(Some(&defaults), variables, &Overrides::default()).unwrap();
        let url = config.database.url.to_string();
        assert_eq!(url, "postgres@timescaledb:5432/simusage", "{name}");
        let database = environment(&services["timescaledb"]);
        assert_eq!(database["POSTGRES_DB"], "simusage");
    }
    let [Command::Serve(serve)] = &commands_by_service()["serve"][..] else {
        panic!("the service serve does not run `serve`")
    };
    let listen = serve.listen.clone().unwrap();
    assert!(
        serve.allow_anonymous && listen.starts_with("0.0.0.0:"),
        "{listen}"
    );
    let (_, port) = host_and_port(&listen);
    assert_eq!(
        texts(&services["serve"]["ports"]),
        [format!("127.0.0.1:{port}:{port}")]
    );
    // Prometheus scrapes the addresses of ingest and serve.
    let [Command::Ingest(ingest)] = &commands_by_service()["ingest"][..] else {
        panic!("the service ingest does not run `ingest`")
    };
    let prometheus = yaml("grafana/prometheus.yml");
    let jobs = items(&prometheus["scrape_configs"]);
    let targets: BTreeSet<&str> = jobs
        .iter()
        .flat_map(|job| items(&job["static_configs"]))
        .flat_map(|config| texts(&config["targets"]))
        .collect();
    let metrics_listen = ingest.metrics_listen.as_deref().unwrap();
    let (_, metrics_port) = metrics_listen.rsplit_once(':').unwrap();
    assert_eq!(
        targets,
        BTreeSet::from([
            &*format!("ingest:{metrics_port}"),
            &*format!("serve:{port}")
        ])
    );
    let health = services["ingest"]["healthcheck"]["test"][3]
        .as_str()
        .unwrap();
    assert!(
        health.contains(&format!("/127.0.0.1/{metrics_port} ")),
        "{health}"
    );
}

#[test]
fn ports_are_published_on_loopback_only_and_versions_are_pinned() {
    let mut taken = BTreeSet::new();
    for (name, service) in services() {
        for port in texts(&service["ports"]) {
            let [address, published, _] = port.split(':').collect::<Vec<_>>()[..] else {
                panic!("{name}: {port}")
            };
            assert_eq!(address, "127.0.0.1", "{name}");
            assert!(
                taken.insert(published.to_owned()),
                "{name}: port {published} is published twice"
            );
        }
        let image = service["image"]
            .as_str()
            .unwrap_or_else(|| panic!("{name} has no image"));
        let is_pinned = image
            .rsplit_once(':')
            .is_some_and(|(_, tag)| tag.split('.').count() == 3);
        assert!(
            is_pinned || service["build"] == ".",
            "{name}: {image} is not pinned"
        );
    }
}

#[test]
fn every_dependency_becomes_healthy_or_completes() {
    let services = services();
    for (name, service) in &services {
        let Some(targets) = service["depends_on"].as_object() else {
            continue;
        };
        for (target, how) in targets {
            let dependency = services
                .get(target)
                .unwrap_or_else(|| panic!("{name} depends on {target}, which is not a service"));
            match how["condition"].as_str().unwrap() {
                // The health check of the image is for `serve`.
                "service_healthy" => assert!(
                    dependency["healthcheck"]["test"].is_array(),
                    "{name}: {target}"
                ),
                "service_completed_successfully" => {
                    assert_eq!(dependency["restart"], "on-failure", "{name}: {target}");
                }
                other => panic!("{name}: {other}"),
            }
            let profile = texts(&dependency["profiles"]);
            assert!(
                profile.is_empty() || profile == texts(&service["profiles"]),
                "{name} depends on {target}, which is in another profile"
            );
        }
    }
    let monitoring: Vec<&String> = services
        .iter()
        .filter(|(_, service)| texts(&service["profiles"]) == ["monitoring"])
        .map(|(name, _)| name)
        .collect();
    assert_eq!(monitoring, ["grafana", "grafana-role", "prometheus"]);
}

#[test]
fn every_volume_is_declared_and_used_once() {
    let compose = yaml("docker-compose.yml");
    let named: BTreeSet<&str> = compose["volumes"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let mut used = BTreeSet::new();
    for (name, service) in services() {
        for volume in texts(&service["volumes"]) {
            let (source, _) = volume.split_once(':').unwrap();
            match source.strip_prefix("./") {
                Some(file) => assert!(
                    path(file).exists() && volume.ends_with(":ro"),
                    "{name}: {volume}"
                ),
                None => assert!(
                    used.insert(source.to_owned()),
                    "{name}: {source} is used twice"
                ),
            }
        }
    }
    assert_eq!(used, named.into_iter().map(str::to_owned).collect());
}

#[test]
fn every_service_runs_without_privileges_and_within_limits() {
    for (name, service) in services() {
        let user = service["user"].as_str().unwrap_or_default();
        let (id, _) = user.split_once(':').expect(&name);
        assert!(
            id.parse::<u32>().is_ok_and(|id| id > 0),
            "{name} runs as '{user}'"
        );
        assert_eq!(texts(&service["cap_drop"]), ["ALL"], "{name}");
        assert_eq!(
            texts(&service["security_opt"]),
            ["no-new-privileges:true"],
            "{name}"
        );
        assert!(service["mem_limit"].is_string(), "{name}");
        assert!(service["pids_limit"].is_u64(), "{name}");
        assert!(
            service["privileged"].is_null() && service["cap_add"].is_null(),
            "{name}"
        );
    }
    let dockerfile = text("Dockerfile");
    assert!(dockerfile.contains("\nUSER 10001:10001\n"), "{dockerfile}");
    // Orchestrators that check for root cannot resolve names.
    assert_eq!(services()["serve"]["user"], "10001:10001");
}
