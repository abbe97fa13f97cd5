//! A mock Kafka cluster in the test process, which can be told to fail.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};

use super::program::{Run, command};

/// The topic of the mock clusters.
pub const TOPIC: &str = "usage";
/// The consumer group that reads it.
pub const GROUP: &str = "billing";

/// A cluster of three brokers, stopped when dropped.
pub struct Kafka {
    pub cluster: MockCluster<'static, DefaultProducerContext>,
    producer: BaseProducer,
    partitions: i32,
}

impl Kafka {
    /// Starts a cluster with the topic.
    pub fn start(partitions: i32) -> Self {
        let cluster = MockCluster::new(3).unwrap();
        cluster.create_topic(TOPIC, partitions, 3).unwrap();
        let producer = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .set("queue.buffering.max.ms", "0")
            .set("reconnect.backoff.max.ms", "200")
            .create()
            .unwrap();
        Self {
            cluster,
            producer,
            partitions,
        }
    }

    pub fn brokers(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    /// Sends each line as a message, to the partitions in turn.
    pub fn send(&self, lines: &str) {
        for (partition, line) in (0..self.partitions).cycle().zip(lines.lines()) {
            let record = BaseRecord::<(), str>::to(TOPIC)
                .partition(partition)
                .payload(line);
            self.producer
                .send(record)
                .map_err(|(error, _)| error)
                .unwrap();
            self.producer.poll(Duration::ZERO);
        }
        self.producer.flush(Duration::from_secs(30)).unwrap();
    }

    /// A command that ingests the topic.
    pub fn ingest(&self, url: &str, arguments: &[&str]) -> Command {
        ingest(&self.brokers(), TOPIC, url, arguments)
    }

    /// Ingests the topic up to its end.
    pub fn ingest_to_end(&self, url: &str) -> Run {
        self.ingest(url, &["--until-end"]).output().unwrap().into()
    }
}

/// A command that ingests the topic, with small batches and a short session timeout.
pub fn ingest(brokers: &str, topic: &str, url: &str, arguments: &[&str]) -> Command {
    let kafka = [
        "ingest", "--json", "--kafka", brokers, "--topic", topic, "--group", GROUP,
    ];
    let mut command = command(url, &[&kafka, arguments].concat());
    command
        .env("SIMUSAGE_INGEST_BATCH_ROWS", "40")
        .env("SIMUSAGE_INGEST_BATCH_AGE_MS", "100")
        .env("SIMUSAGE_INGEST_PAGE_MS", "100")
        .env("SIMUSAGE_KAFKA_SESSION_TIMEOUT_MS", "4000")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Sends a signal, such as `TERM`, to a process.
pub fn signal(child: &Child, name: &str) {
    let status = Command::new("kill")
        .args([&format!("-{name}"), &child.id().to_string()])
        .status()
        .unwrap();
    assert!(status.success());
}
