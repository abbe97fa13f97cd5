//! Apache Kafka: brokers in their own processes, started from the jars that `make kafka` installs.

use std::fs::File;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tempfile::TempDir;

use super::certificates::{Authority, PairFiles};
use super::kafka::{GROUP, ingest, signal};
use super::program::Run;

/// How long a broker may take to accept clients. Generous, because the machine may be busy.
const START_TIMEOUT: Duration = Duration::from_mins(2);

/// How long an administrative request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The name and password of the user of the listeners with SASL.
pub const USER: (&str, &str) = ("reader", "open sesame");

/// The host name of each listener's address, and the name in the brokers' certificate.
const HOST: &str = "127.0.0.1";

/// The settings of a broker, besides its identity and addresses. Small, so that it starts quickly,
/// and with short timeouts, so that tests do.
const SETTINGS: &str = "\
offsets.topic.num.partitions=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
unclean.leader.election.enable=true
share.coordinator.state.topic.replication.factor=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.session.timeout.ms=5000
group.consumer.min.session.timeout.ms=1000
group.consumer.heartbeat.interval.ms=500
group.consumer.min.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
log.retention.check.interval.ms=500
log.cleaner.backoff.ms=200
log.segment.delete.delay.ms=200
log.initial.task.delay.ms=500
message.max.bytes=10000000
replica.fetch.max.bytes=10000000
auto.create.topics.enable=false
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
ssl.client.auth=none
listener.name.ssl.ssl.client.auth=required
ssl.keystore.type=PEM
ssl.truststore.type=PEM
";

const PLAIN: &str = "org.apache.kafka.common.security.plain.PlainLoginModule";
const SCRAM: &str = "org.apache.kafka.common.security.scram.ScramLoginModule";

/// A cluster of brokers, whose data is deleted when it is dropped.
pub struct Cluster {
    nodes: Vec<Node>,
    /// Issued the certificates of the brokers, and is trusted by them.
    pub authority: Authority,
    directory: TempDir,
}

/// A process of the cluster.
struct Node {
    name: String,
    is_broker: bool,
    settings: PathBuf,
    ports: Ports,
    process: Option<Child>,
}

/// The port of each listener.
#[derive(Clone, Copy)]
struct Ports {
    plain: u16,
    sasl_ssl: u16,
    ssl: u16,
}

/// How a transaction ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TransactionEnd {
    Commit,
    Abort,
    LeaveOpen,
}

/// A topic, and how to send to it.
pub struct Topic<'a> {
    cluster: &'a Cluster,
    pub name: String,
    partitions: i32,
    producer: BaseProducer,
}

impl Cluster {
    /// The cluster of all tests that neither stop a broker nor change its settings: one broker.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(Self::of_one)
    }

    /// Starts a broker that is its own controller.
    pub fn of_one() -> Self {
        Self::start(&[(1, "broker,controller")])
    }

    /// Starts a controller and two brokers, nodes 1 and 2.
    pub fn of_two() -> Self {
        Self::start(&[(100, "controller"), (1, "broker"), (2, "broker")])
    }

    fn start(roles: &[(u32, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::new("authority");
        let pair = PairFiles::new(&authority.issue(&[HOST]));
        let read = |path: PathBuf| std::fs::read_to_string(path).unwrap();
        let key_store = directory.path().join("broker.pem");
        std::fs::write(&key_store, read(pair.key()) + &read(pair.certificate())).unwrap();
        let trust_store = directory.path().join("authority.pem");
        authority.write(&trust_store);
        let [controller] = free_ports();
        let brokers = roles
            .iter()
            .filter(|(_, role)| role.contains("broker"))
            .count();
        let mut cluster = Self {
            nodes: vec![],
            authority,
            directory,
        };
        for &(id, node_roles) in roles {
            let [plain, sasl_ssl, ssl] = free_ports();
            let ports = Ports {
                plain,
                sasl_ssl,
                ssl,
            };
            let is_broker = node_roles.contains("broker");
            let file = |name: String| cluster.directory.path().join(name);
            let mut settings = vec![
                SETTINGS.to_owned(),
                format!("node.id={id}"),
                format!("process.roles={node_roles}"),
                format!("log.dirs={}", file(format!("data-{id}")).display()),
                format!(
                    "controller.quorum.voters={}@{HOST}:{controller}",
                    roles[0].0
                ),
                // Then each broker has the groups, and can continue alone.
                format!("offsets.topic.replication.factor={brokers}"),
                format!("ssl.keystore.location={}", key_store.display()),
                format!("ssl.truststore.location={}", trust_store.display()),
            ];
            let mut listeners = vec![];
            if is_broker {
                listeners.extend([
                    format!("PLAINTEXT://{HOST}:{plain}"),
                    format!("SASL_SSL://{HOST}:{sasl_ssl}"),
                    format!("SSL://{HOST}:{ssl}"),
                ]);
                let (user, password) = USER;
                let listener = "listener.name.sasl_ssl";
                settings.extend([
                    format!("advertised.listeners={}", listeners.join(",")),
                    format!(
                        "{listener}.plain.sasl.jaas.config={PLAIN} required user_{user}=\"{password}\";"
                    ),
                    format!("{listener}.scram-sha-256.sasl.jaas.config={SCRAM} required;"),
                    format!("{listener}.scram-sha-512.sasl.jaas.config={SCRAM} required;"),
                ]);
            }
            if node_roles.contains("controller") {
                listeners.push(format!("CONTROLLER://{HOST}:{controller}"));
            }
            settings.push(format!("listeners={}", listeners.join(",")));
            let settings_file = file(format!("{id}.properties"));
            std::fs::write(&settings_file, settings.join("\n")).unwrap();
            cluster.nodes.push(Node {
                name: id.to_string(),
                is_broker,
                settings: settings_file,
                ports,
                process: None,
            });
        }
        cluster.nodes.iter().for_each(Node::format);
        for node in &mut cluster.nodes {
            node.launch();
        }
        for node in &mut cluster.nodes {
            node.wait_until_ready();
        }
        cluster
    }

    /// The addresses of all brokers, without TLS or a password.
    pub fn brokers(&self) -> String {
        self.addresses(|ports| ports.plain)
    }

    /// The addresses of all brokers, with TLS and a password.
    pub fn brokers_with_password(&self) -> String {
        self.addresses(|ports| ports.sasl_ssl)
    }

    /// The addresses of all brokers, with TLS and client certificates.
    pub fn brokers_with_certificates(&self) -> String {
        self.addresses(|ports| ports.ssl)
    }

    fn addresses(&self, port: impl Fn(&Ports) -> u16) -> String {
        let brokers = self.nodes.iter().filter(|node| node.is_broker);
        let addresses: Vec<_> = brokers
            .map(|node| format!("{HOST}:{}", port(&node.ports)))
            .collect();
        addresses.join(",")
    }

    /// A client for administrative requests.
    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().unwrap()
    }

    /// The configuration of a client.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", self.brokers())
            .set("reconnect.backoff.max.ms", "200")
            .set("topic.metadata.refresh.interval.ms", "1000");
        config
    }

    /// Creates a topic with a unique name.
    pub async fn topic(&self, partitions: i32, settings: &[(&str, &str)]) -> Topic<'_> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("usage-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.create(&name, partitions, TopicReplication::Fixed(1), settings)
            .await;
        self.existing_topic(&name, partitions)
    }

    /// Creates a topic of one partition with a replica on each of these brokers, the leader first.
    pub async fn replicated_topic(&self, replicas: &[i32], settings: &[(&str, &str)]) -> Topic<'_> {
        let name = "usage-replicated";
        self.create(name, 1, TopicReplication::Variable(&[replicas]), settings)
            .await;
        self.existing_topic(name, 1)
    }

    /// A topic that exists.
    pub fn existing_topic(&self, name: &str, partitions: i32) -> Topic<'_> {
        Topic {
            cluster: self,
            name: name.to_owned(),
            partitions,
            producer: self.producer(&[]),
        }
    }

    async fn create(
        &self,
        name: &str,
        partitions: i32,
        replication: TopicReplication<'_>,
        settings: &[(&str, &str)],
    ) {
        let mut topic = NewTopic::new(name, partitions, replication);
        for (name, value) in settings {
            topic = topic.set(name, value);
        }
        // A topic that was deleted a moment ago may still exist.
        let began = Instant::now();
        loop {
            let results = self.admin().create_topics([&topic], &options()).await;
            match &results.unwrap()[..] {
                [Ok(_)] => return,
                other => assert!(began.elapsed() < REQUEST_TIMEOUT, "{other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// A producer that sends each message at once.
    pub fn producer(&self, settings: &[(&str, &str)]) -> BaseProducer {
        let mut config = self.client();
        config
            .set("queue.buffering.max.ms", "0")
            .set("message.max.bytes", "10000000")
            .set("acks", "1");
        for &(name, value) in settings {
            config.set(name, value);
        }
        config.create().unwrap()
    }

    /// Kills a broker.
    pub fn kill(&mut self, id: u32) {
        self.node(id).end("KILL");
    }

    /// Stops a broker, and waits until it has exited.
    pub fn stop(&mut self, id: u32) {
        self.node(id).end("TERM");
    }

    /// Starts a broker that was stopped, with the data that it had.
    pub fn restart(&mut self, id: u32) {
        let node = self.node(id);
        node.launch();
        node.wait_until_ready();
    }

    fn node(&mut self, id: u32) -> &mut Node {
        let name = id.to_string();
        self.nodes
            .iter_mut()
            .find(|node| node.name == name)
            .unwrap()
    }
}

impl Node {
    /// The command that runs a class with the broker's jars.
    fn java(class: &str) -> Vec<String> {
        let java = std::env::var("JAVA_HOME")
            .map_or_else(|_| "java".to_owned(), |home| format!("{home}/bin/java"));
        let jars = concat!(env!("CARGO_MANIFEST_DIR"), "/target/kafka/*");
        [
            &java,
            "-Xmx320m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Xshare:auto",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-cp",
            jars,
            class,
        ]
        .map(str::to_owned)
        .into()
    }

    /// Initializes the broker's data, with the user of the listeners with SASL.
    fn format(&self) {
        let (user, password) = USER;
        let java = Self::java("kafka.tools.StorageTool");
        let mut command = Command::new(&java[0]);
        command
            .args(&java[1..])
            .args(["format", "--cluster-id", "c2ltdXNhZ2UtdGVzdHM"])
            .arg("--config")
            .arg(&self.settings);
        for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
            command.arg("--add-scram");
            command.arg(format!("{mechanism}=[name={user},password={password}]"));
        }
        let output = command
            .output()
            .expect("Java is installed; run these tests with `make test-kafka`");
        assert!(
            output.status.success(),
            "{output:?}; run these tests with `make test-kafka`"
        );
    }

    fn launch(&mut self) {
        let log = File::create(self.log()).unwrap();
        // The shell kills the broker when its input ends, so however this process ends.
        let script = "\"$@\" </dev/null & read -r name; kill \"-${name:-KILL}\" $!; wait $!";
        let process = Command::new("sh")
            .args(["-c", script, "sh"])
            .args(Self::java("kafka.Kafka"))
            .arg(&self.settings)
            .stdin(Stdio::piped())
            // So that Ctrl-C reaches the tests only.
            .process_group(0)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(process);
    }

    fn log(&self) -> PathBuf {
        self.settings.with_extension("log")
    }

    fn wait_until_ready(&self) {
        let began = Instant::now();
        while self.is_broker && TcpStream::connect((HOST, self.ports.plain)).is_err() {
            assert!(
                began.elapsed() < START_TIMEOUT,
                "broker {} did not start: {}",
                self.name,
                std::fs::read_to_string(self.log()).unwrap()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends the process with a signal, and waits until it has exited.
    fn end(&mut self, signal: &str) {
        if let Some(mut process) = self.process.take() {
            // Fails if the shell has been killed, as by Ctrl-C.
            let _ = writeln!(process.stdin.take().unwrap(), "{signal}");
            process.wait().unwrap();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.end("KILL");
        }
    }
}

impl Topic<'_> {
    /// Sends each line as a message, to the partitions in turn.
    pub fn send(&self, lines: &str) {
        for (partition, line) in (0..self.partitions).cycle().zip(lines.lines()) {
            self.enqueue(&self.producer, partition, None, Some(line.as_bytes()));
        }
        self.producer.flush(REQUEST_TIMEOUT).unwrap();
    }

    /// Sends one message to partition 0.
    pub fn send_message(&self, key: Option<&str>, payload: Option<&[u8]>) {
        self.enqueue(&self.producer, 0, key, payload);
        self.producer.flush(REQUEST_TIMEOUT).unwrap();
    }

    /// Sends each line as a message of a transaction, and ends it as told.
    pub fn send_in_transaction(&self, lines: &str, end: TransactionEnd) -> BaseProducer {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!("transaction-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let producer = self
            .cluster
            .producer(&[("transactional.id", &id), ("acks", "all")]);
        producer.init_transactions(REQUEST_TIMEOUT).unwrap();
        producer.begin_transaction().unwrap();
        for (partition, line) in (0..self.partitions).cycle().zip(lines.lines()) {
            // With a key, because a compacted topic refuses messages without one.
            self.enqueue(&producer, partition, Some("key"), Some(line.as_bytes()));
        }
        producer.flush(REQUEST_TIMEOUT).unwrap();
        match end {
            TransactionEnd::Commit => producer.commit_transaction(REQUEST_TIMEOUT).unwrap(),
            TransactionEnd::Abort => producer.abort_transaction(REQUEST_TIMEOUT).unwrap(),
            TransactionEnd::LeaveOpen => {}
        }
        producer
    }

    /// Commits a transaction that was left open.
    #[expect(clippy::unused_self, reason = "belongs to send_in_transaction")]
    pub fn commit(&self, producer: &BaseProducer) {
        producer.commit_transaction(REQUEST_TIMEOUT).unwrap();
    }

    fn enqueue(
        &self,
        producer: &BaseProducer,
        partition: i32,
        key: Option<&str>,
        payload: Option<&[u8]>,
    ) {
        let mut record = BaseRecord::<str, [u8]>::to(&self.name).partition(partition);
        (record.key, record.payload) = (key, payload);
        while let Err((error, again)) = producer.send(record) {
            // Added partitions are unknown for a moment.
            let passing = [
                RDKafkaErrorCode::QueueFull,
                RDKafkaErrorCode::UnknownPartition,
            ];
            assert!(
                passing.map(Some).contains(&error.rdkafka_error_code()),
                "{error}"
            );
            producer.poll(Duration::from_millis(10));
            record = again;
        }
        producer.poll(Duration::ZERO);
    }

    /// Deletes the topic, and creates another one with its name.
    pub async fn recreate(&self) {
        let admin = self.cluster.admin();
        let results = admin
            .delete_topics(&[&self.name], &options())
            .await
            .unwrap();
        results[0].as_ref().unwrap();
        self.cluster
            .create(&self.name, self.partitions, TopicReplication::Fixed(1), &[])
            .await;
    }

    /// Adds partitions, so that there are `count`.
    pub async fn add_partitions(&mut self, count: i32) {
        let new = NewPartitions::new(&self.name, usize::try_from(count).unwrap());
        let admin = self.cluster.admin();
        let results = admin.create_partitions([&new], &options()).await.unwrap();
        results[0].as_ref().unwrap();
        self.partitions = count;
    }

    /// Deletes the messages of partition 0 before `offset`, as retention does.
    pub async fn delete_before(&self, offset: i64) {
        let mut offsets = TopicPartitionList::new();
        offsets
            .add_partition_offset(&self.name, 0, Offset::Offset(offset))
            .unwrap();
        // The result never arrives if the client is dropped before it.
        let admin = self.cluster.admin();
        let deleted = admin.delete_records(&offsets, &options()).await.unwrap();
        deleted.elements()[0].error().unwrap();
    }

    /// The first available offset of partition 0, and the one after the last message.
    pub fn offsets(&self) -> (i64, i64) {
        self.consumer("offsets")
            .fetch_watermarks(&self.name, 0, REQUEST_TIMEOUT)
            .unwrap()
    }

    /// The offset of the first message of partition 0 that is at `offset` or later.
    pub fn first_message_at_or_after(&self, offset: i64) -> i64 {
        let consumer = self.consumer("offsets");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.name, 0, Offset::Offset(offset))
            .unwrap();
        consumer.assign(&list).unwrap();
        let message = consumer.poll(REQUEST_TIMEOUT).unwrap().unwrap();
        message.offset()
    }

    /// The offset of a partition that the group has committed.
    pub fn committed(&self, partition: i32) -> Offset {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.name, partition);
        let consumer = self.consumer(GROUP);
        let committed = consumer.committed_offsets(list, REQUEST_TIMEOUT).unwrap();
        committed.elements()[0].offset()
    }

    fn consumer(&self, group: &str) -> BaseConsumer {
        self.cluster
            .client()
            .set("group.id", group)
            .create()
            .unwrap()
    }

    /// A command that ingests the topic.
    pub fn ingest(&self, url: &str, arguments: &[&str]) -> Command {
        ingest(&self.cluster.brokers(), &self.name, url, arguments)
    }

    /// Ingests the topic up to its end.
    pub fn ingest_to_end(&self, url: &str, arguments: &[&str]) -> Run {
        let arguments = [&["--until-end"], arguments].concat();
        Ingest::spawn(self.ingest(url, &arguments)).wait()
    }

    /// Starts an ingest of the topic that runs until it is stopped.
    pub fn start(&self, url: &str, arguments: &[&str]) -> Ingest {
        Ingest::spawn(self.ingest(url, arguments))
    }
}

/// How long an ingest may take to end.
const EXIT_TIMEOUT: Duration = Duration::from_mins(1);

/// An ingest that runs until it is stopped, and is killed if a test fails.
pub struct Ingest(Option<Child>);

impl Ingest {
    pub fn spawn(mut command: Command) -> Self {
        Self(Some(command.spawn().unwrap()))
    }

    /// Sends SIGTERM, and waits for its end.
    pub fn stop(self) -> Run {
        signal(self.0.as_ref().unwrap(), "TERM");
        self.wait()
    }

    /// Waits for its end, or kills it after a minute.
    pub fn wait(self) -> Run {
        self.wait_within(EXIT_TIMEOUT)
    }

    /// Waits for its end, or kills it.
    pub fn wait_within(mut self, timeout: Duration) -> Run {
        let mut attempts_left = timeout.as_millis() / 50;
        while self.0.as_mut().unwrap().try_wait().unwrap().is_none() {
            attempts_left -= 1;
            if attempts_left == 0 {
                self.0.as_mut().unwrap().kill().unwrap();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.0.take().unwrap().wait_with_output().unwrap().into()
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(REQUEST_TIMEOUT))
        .operation_timeout(Some(REQUEST_TIMEOUT))
}

/// Ports that were free a moment ago.
pub fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    let listeners = [(); COUNT].map(|()| TcpListener::bind((HOST, 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}
