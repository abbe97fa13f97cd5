//! One client cannot take the server down for the others: each test attacks a running server while
//! another client uses it.

use std::io::Read as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};

use crate::support::program::simusage;
use crate::support::server::{Server, get_from, read, status};
use crate::support::{TestDatabase, at, require_native_server};

const SERIES: &str = "/api/v1/organization/honest/usage?start=2020-02-01&end=2020-02-08&every=1day";

/// What the 99th percentile may add to three times its undisturbed value, because machines that run
/// tests are busy.
const ALLOWANCE: Duration = Duration::from_secs(1);

/// The memory that the server may use, in bytes. A debug build needs more than a release build.
const MAX_MEMORY: u64 = 150_000_000;

/// A server with an attacker's and an honest client's token.
struct Target {
    server: Arc<Server>,
    attacker: String,
    honest: String,
}

impl Target {
    async fn start(database: &TestDatabase, settings: &[(&str, &str)]) -> Self {
        let records: Vec<(&str, &str, DateTime<Utc>, i64)> = (0..24 * 7)
            .map(|hour| at("2020-02-01T00:00:00Z") + TimeDelta::hours(hour))
            .flat_map(|time| [("1", "honest", time, 1), ("2", "attacker", time, 2)])
            .collect();
        database.load(&records).await;
        let token = |organization: &str| {
            let arguments = [
                "token",
                "create",
                organization,
                "--organization",
                organization,
            ];
            let run = simusage(database.url(), &arguments);
            assert_eq!(run.status, 0, "{run:?}");
            run.stdout.trim().to_owned()
        };
        let (attacker, honest) = (token("attacker"), token("honest"));
        let server = Arc::new(Server::start_with(database.url(), &[], settings));
        Self {
            server,
            attacker,
            honest,
        }
    }

    /// Sends the attacker's request.
    fn attack(&self, path: &str) -> TcpStream {
        let header = format!("authorization: Bearer {}\r\n", self.attacker);
        self.server.send_with(path, &header)
    }

    /// The time that the honest client waits for a response, which must be 200.
    fn honest_request(server: &Server, token: &str) -> Duration {
        let start = Instant::now();
        let header = format!("authorization: Bearer {token}\r\n");
        let response = read(server.send_with(SERIES, &header));
        assert_eq!(status(&response), 200, "{response}");
        assert!(response.contains("\"bytes-used-total\":168"), "{response}");
        start.elapsed()
    }

    /// The longest but one of 60 waits without an attack.
    fn undisturbed(&self) -> Duration {
        percentile(
            (0..60)
                .map(|_| Self::honest_request(&self.server, &self.honest))
                .collect(),
        )
    }

    /// Sends honest requests until the returned value is asked for the 99th percentile.
    fn honest_client(&self) -> HonestClient {
        let (server, token) = (Arc::clone(&self.server), self.honest.clone());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let waits = std::thread::spawn(move || {
            let mut waits = vec![];
            while !stopped.load(Ordering::Relaxed) || waits.len() < 60 {
                waits.push(Self::honest_request(&server, &token));
                std::thread::sleep(Duration::from_millis(5));
            }
            waits
        });
        HonestClient { stop, waits }
    }

    /// Attacks while the honest client sends requests, and checks that it does not notice. What it
    /// waits without the attack is measured before and after, because other tests may begin; the server
    /// itself may not be slower for long.
    fn withstand<T>(&self, attack: impl FnOnce() -> T) -> T {
        let before = self.undisturbed();
        let client = self.honest_client();
        let attacked = attack();
        let disturbed = client.finish();
        let undisturbed = self.undisturbed().clamp(before, 4 * before);
        let allowed = 3 * undisturbed + ALLOWANCE;
        assert!(
            disturbed <= allowed,
            "the honest client waited {disturbed:?}, and {undisturbed:?} without the attack"
        );
        let memory = self.server.memory();
        assert!(memory <= MAX_MEMORY, "the server uses {memory} bytes");
        attacked
    }
}

struct HonestClient {
    stop: Arc<AtomicBool>,
    waits: JoinHandle<Vec<Duration>>,
}

impl HonestClient {
    fn finish(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        percentile(self.waits.join().expect("every honest request is answered"))
    }
}

/// The 99th percentile, or the longest but one of fewer than 200.
fn percentile(mut waits: Vec<Duration>) -> Duration {
    waits.sort_unstable();
    let beyond = (waits.len() / 100).max(1);
    waits[waits.len() - 1 - beyond]
}

/// Reads the responses of all connections, and returns their statuses.
fn statuses(streams: Vec<TcpStream>) -> Vec<u16> {
    streams
        .into_iter()
        .map(|stream| status(&read(stream)))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn series_of_many_buckets_do_not_occupy_the_server() {
    let database = TestDatabase::migrated().await;
    let target = Target::start(&database, &[]).await;
    let path = "/usage?start=2015-01-01&end=2025-12-31&every=1hour&size=1&tz=Europe/Berlin";
    for (organization, expected) in [("nobody", 404), ("honest", 404)] {
        let path = format!("/api/v1/organization/{organization}{path}");
        let answered =
            target.withstand(|| statuses((0..100).map(|_| target.attack(&path)).collect()));
        assert_eq!(answered, [expected; 100], "{organization}");
    }
    let path = format!("/api/v1/organization/attacker{path}");
    let answered = target.withstand(|| statuses((0..10).map(|_| target.attack(&path)).collect()));
    assert_eq!(answered, [200; 10]);
    // Every empty bucket is a row, and none of them is in the database.
    let path = path.replace("&size=1", "&fill=zero&format=csv");
    let rows = target.withstand(|| {
        read(target.attack(&path))
            .lines()
            .filter(|line| line.ends_with(",0,0"))
            .count()
    });
    assert_eq!(rows, 96_432 - 24 * 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_series_of_too_many_buckets_is_refused_by_default() {
    let database = TestDatabase::migrated().await;
    let target = Target::start(&database, &[]).await;
    let path = "/api/v1/organization/nobody/usage?start=1970-01-01&end=2083-12-31&every=1hour";
    let answered = target.withstand(|| statuses((0..50).map(|_| target.attack(path)).collect()));
    assert_eq!(answered, [422; 50]);
}

/// Inserts an inventory whose export does not fit into the buffers of a connection.
async fn large_inventory(database: &TestDatabase, cards: u32) {
    let connection = database.connect().await;
    let insert = format!(
        "insert into sim_cards (iccid) select '8944' || lpad(number::text, 15, '0')
         from generate_series(1, {cards}) as number;
         insert into sim_card_assignments (sim_card_id, valid_from, organization_id, iccid)
         select sim_cards.id, '-infinity', organizations.id, iccid from sim_cards, organizations
         where iccid like '8944%' and name = 'attacker';
         analyze"
    );
    connection.batch_execute(&insert).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_not_read_is_aborted_at_the_timeout() {
    let database = TestDatabase::migrated().await;
    let settings = [
        ("SIMUSAGE_SERVE_STREAM_TIMEOUT_MS", "4000"),
        ("SIMUSAGE_SERVE_MAX_BUCKETS", "1000000"),
    ];
    let target = Target::start(&database, &settings).await;
    let path = "/api/v1/organization/attacker/usage?start=1970-01-01&end=2083-12-31&every=1hour&fill=zero&format=csv";
    let mut unread = target.attack(path);
    assert_eq!(unread.read(&mut [0; 8]).unwrap(), 8, "the response begins");
    let log = &target.server;
    log.until_logged("a response was aborted: it was not read within 4000 ms");
    // What the client finally reads is not complete, and so says the log.
    let mut rest = vec![];
    let _ = unread.read_to_end(&mut rest);
    assert!(
        !rest.ends_with(b"0\r\n\r\n"),
        "the response ends as if it were complete"
    );
    let line = log.until_logged("GET /api/v1/organization/attacker/usage 200");
    assert!(line.ends_with(", aborted"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a native TimescaleDB"]
async fn a_stream_that_is_not_read_gives_its_connection_back_at_the_timeout() {
    require_native_server();
    let database = TestDatabase::migrated().await;
    let settings = [
        ("SIMUSAGE_SERVE_STREAM_TIMEOUT_MS", "4000"),
        ("SIMUSAGE_SERVE_WORKERS", "1"),
        ("SIMUSAGE_SERVE_POOL_SIZE", "1"),
    ];
    let target = Target::start(&database, &settings).await;
    large_inventory(&database, 300_000).await;
    let mut unread = target.attack("/api/v1/inventory?format=csv");
    assert_eq!(unread.read(&mut [0; 8]).unwrap(), 8);
    // The only connection of the pool is in use until the timeout.
    let waited = Target::honest_request(&target.server, &target.honest);
    assert!(waited < Duration::from_secs(10), "{waited:?}");
    target.server.until_logged("a response was aborted");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a native TimescaleDB"]
async fn clients_that_do_not_read_their_streams_leave_connections_to_others() {
    require_native_server();
    let database = TestDatabase::migrated().await;
    let target = Target::start(&database, &[]).await;
    large_inventory(&database, 300_000).await;
    let (unread, refused) = target.withstand(|| {
        let mut unread = vec![];
        let mut refused = 0;
        for _ in 0..16 {
            let mut stream = target.attack("/api/v1/inventory?format=csv");
            let mut head = [0; 12];
            stream.read_exact(&mut head).unwrap();
            match &head[9..] {
                b"200" => unread.push(stream),
                b"429" => refused += 1,
                _ => panic!("{}", String::from_utf8_lossy(&head)),
            }
        }
        std::thread::sleep(Duration::from_secs(1));
        (unread, refused)
    });
    assert_eq!((unread.len(), refused), (2, 14));
    // Streams beyond a client's share are refused, its pages are not.
    assert_eq!(
        status(&read(target.attack("/api/v1/inventory?size=1"))),
        200
    );
    drop(unread);
    target.server.until_logged(", aborted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a native TimescaleDB"]
async fn a_client_that_resets_its_connections_waits_for_its_queries_all_the_same() {
    require_native_server();
    let database = TestDatabase::migrated().await;
    let target = Target::start(&database, &[("SIMUSAGE_SERVE_WORKERS", "1")]).await;
    // Each query of the attacker waits for a lock that the honest client does not need.
    let mut blocker = database.connect().await;
    let locking = blocker.transaction().await.unwrap();
    let lock = "lock table sim_card_assignments in access exclusive mode";
    locking.batch_execute(lock).await.unwrap();
    tokio::task::block_in_place(|| {
        target.withstand(|| {
            for number in 0..60 {
                let path = ["/api/v1/inventory?q=8944", "/api/v1/inventory?format=csv"][number % 2];
                let stream = target.attack(path);
                std::thread::sleep(Duration::from_millis(20));
                // Closed so, it is reset instead of ended.
                let stream = socket2::Socket::from(stream);
                stream.set_linger(Some(Duration::ZERO)).unwrap();
            }
        });
    });
    let waiting = "select count(*) from pg_stat_activity where datname = current_database() \
                   and wait_event_type = 'Lock'";
    let waiting: i64 = locking.query_one(waiting, &[]).await.unwrap().get(0);
    assert_eq!(waiting, 4, "as many queries as serve.max_queries_per_token");
    locking.rollback().await.unwrap();
    target.server.until_logged("as attacker, aborted");
    let metrics = target.server.get("/metrics");
    assert!(!metrics.contains("reason=\"other\""), "{metrics}");
    // Every connection has the settings of pages again.
    for _ in 0..20 {
        assert_eq!(
            status(&read(target.attack("/api/v1/inventory?size=1"))),
            200
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a native TimescaleDB"]
async fn a_client_that_floods_the_database_waits_only_for_itself() {
    require_native_server();
    let database = TestDatabase::migrated().await;
    let settings = [("SIMUSAGE_SERVE_POOL_TIMEOUT_MS", "2000")];
    let target = Target::start(&database, &settings).await;
    // Each query of the attacker waits for a lock that the honest client does not need.
    let blocker = database.connect().await;
    blocker
        .batch_execute("begin; lock table sim_card_assignments in access exclusive mode")
        .await
        .unwrap();
    let answered = target.withstand(|| {
        let streams: Vec<_> = (0..120)
            .map(|_| target.attack("/api/v1/inventory?q=8944"))
            .collect();
        std::thread::sleep(Duration::from_secs(3));
        streams
    });
    blocker.batch_execute("rollback").await.unwrap();
    let answered = statuses(answered);
    assert_eq!(
        answered.iter().filter(|&&status| status == 200).count(),
        4,
        "{answered:?}"
    );
    assert_eq!(
        answered.iter().filter(|&&status| status == 429).count(),
        116,
        "{answered:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_not_read_files_occupy_little_memory() {
    let database = TestDatabase::migrated().await;
    let target = Target::start(&database, &[]).await;
    let bundle = "/docs/swagger-ui-bundle.js";
    let file = read(target.server.send(bundle));
    assert!(file.len() > 1_000_000, "{} bytes", file.len());
    let before = target.server.memory();
    let unread = target.withstand(|| {
        let unread: Vec<_> = (0..200).map(|_| target.server.send(bundle)).collect();
        std::thread::sleep(Duration::from_secs(1));
        unread
    });
    let each = (target.server.memory() - before) / unread.len() as u64;
    assert!(each < 200_000, "a connection occupies {each} bytes");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a native TimescaleDB"]
async fn probes_cost_a_query_per_second_at_most() {
    require_native_server();
    let database = TestDatabase::migrated().await;
    let target = Target::start(&database, &[]).await;
    let statements = "select (xact_commit + xact_rollback)::bigint from pg_stat_database where datname = current_database()";
    let before = database.number(statements).await;
    let flood = || {
        (0..500)
            .filter(|_| target.server.get("/readyz").contains(" 200 OK"))
            .count()
    };
    let started = Instant::now();
    assert_eq!(flood(), 500);
    let seconds = i64::try_from(started.elapsed().as_secs()).unwrap() + 1;
    // Sessions report their statistics within seconds.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let transactions = database.number(statements).await - before;
    assert!(
        transactions < 100 + 10 * seconds,
        "{transactions} in {seconds} s"
    );
    target.withstand(|| {
        let attack = |path: &str| (0..200).map(|_| target.server.send(path)).collect();
        statuses(attack("/metrics"));
        statuses(attack("/docs/swagger-ui.css"));
    });
}

/// Opens connections that send nothing, from an address of their own. Returns those that the server
/// keeps open.
async fn idle_connections(server: &Server, count: usize) -> Vec<tokio::net::TcpStream> {
    let mut connected = vec![];
    for _ in 0..count {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        connected.push(
            socket
                .connect(server.address().parse().unwrap())
                .await
                .unwrap(),
        );
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    connected.retain(|stream| {
        let read = stream.try_read(&mut [0; 1]);
        read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    });
    connected
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_of_one_address_leave_room_for_others() {
    let database = TestDatabase::migrated().await;
    let settings = [
        ("SIMUSAGE_SERVE_MAX_CONNECTIONS", "40"),
        ("SIMUSAGE_SERVE_MAX_CONNECTIONS_PER_ADDRESS", "10"),
    ];
    let target = Target::start(&database, &settings).await;
    let runtime = tokio::runtime::Handle::current();
    target.withstand(|| {
        for _ in 0..3 {
            let open = tokio::task::block_in_place(|| {
                runtime.block_on(idle_connections(&target.server, 200))
            });
            assert_eq!(open.len(), 10);
            assert_eq!(status(&target.server.get("/livez")), 200);
            drop(open);
            // The server notices that they are closed.
            std::thread::sleep(Duration::from_millis(200));
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_are_answered_on_the_address_of_the_metrics() {
    let database = TestDatabase::migrated().await;
    let settings = [
        ("SIMUSAGE_SERVE_METRICS_LISTEN", "127.0.0.1:0"),
        ("SIMUSAGE_SERVE_MAX_CONNECTIONS", "2"),
        ("SIMUSAGE_SERVE_WORKERS", "1"),
    ];
    let server = Server::start_with(database.url(), &[], &settings);
    let _idle: Vec<_> = (0..4).map(|_| server.connect()).collect();
    let line = server.until_logged("serving metrics on http://");
    let (_, url) = line.split_once("http://").unwrap();
    let (address, _) = url.split_once('/').unwrap();
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(status(&get_from(address, path)), 200, "{path}");
    }
}
