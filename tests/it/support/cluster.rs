//! Starts PostgreSQL servers of a test's own, with the programs of the test server: a primary, and
//! others made from its base backup.

use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use simusage::db;
use tempfile::TempDir;

use super::pooler::{free_port, is_root};
use super::{TestDatabase, config, note_skipped};

/// The name of the database that tests create in their clusters.
const DATABASE: &str = "usage";

/// Far longer than a start or a promotion takes, even on a busy machine.
const TIMEOUT: Duration = Duration::from_mins(1);

/// Enough for a few connections, and no waiting for disks: tests kill processes, not the machine.
/// Memory is mapped from files, which a killed server leaves in its folder and nowhere else.
const SETTINGS: [&str; 15] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "shared_preload_libraries=timescaledb",
    "timescaledb.telemetry_level=off",
    "timescaledb.max_background_workers=2",
    "max_worker_processes=8",
    "max_connections=60",
    "shared_buffers=64MB",
    "dynamic_shared_memory_type=mmap",
    "fsync=off",
    "wal_level=replica",
    "max_wal_senders=4",
    "wal_keep_size=256MB",
    "hot_standby_feedback=on",
    "log_min_messages=warning",
];

/// The folder of the programs `names`: where the server has its own, or in `PATH`, if their version
/// is that of the server.
pub async fn server_programs(database: &TestDatabase, names: &[&str]) -> Option<PathBuf> {
    let connection = database.connect().await;
    let version = "select current_setting('server_version_num')::integer / 10000";
    let version: i32 = connection.query_one(version, &[]).await.unwrap().get(0);
    let folder = "select setting from pg_config where name = 'BINDIR'";
    let beside_server = connection.query_one(folder, &[]).await.ok();
    let beside_server = beside_server.map(|row| PathBuf::from(row.get::<_, String>(0)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = std::env::split_paths(&path).collect();
    let has = |folder: &Path, name: &str| {
        let output = Command::new(folder.join(name)).arg("--version").output();
        output.is_ok_and(|output| {
            String::from_utf8_lossy(&output.stdout).contains(&format!(") {version}."))
        })
    };
    let mut folders = beside_server.into_iter().chain(folders);
    folders.find(|folder| names.iter().all(|name| has(folder, name)))
}

/// Where servers can be started: the programs, and a temporary folder of the user that runs them.
pub struct Cluster {
    programs: PathBuf,
    /// The user and group that run the servers, if the test runs as root, which they refuse.
    user: Option<(u32, u32)>,
    folder: TempDir,
}

impl Cluster {
    /// `None` after noting that the test is skipped.
    pub async fn new_or_skip(test: &str) -> Option<Self> {
        // Only to ask the server.
        let database = TestDatabase::empty().await;
        let names = ["initdb", "postgres", "pg_basebackup"];
        let Some(programs) = server_programs(&database, &names).await else {
            let why = "initdb and pg_basebackup of the server's version are not installed";
            note_skipped(test, why);
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let user = if is_root() {
            let connection = database.connect().await;
            let data = "select current_setting('data_directory')";
            let data = connection.query_one(data, &[]).await.unwrap();
            let owner = std::fs::metadata(data.get::<_, &str>(0));
            let Some(owner) = owner.ok().filter(|owner| owner.uid() != 0) else {
                let why = "root cannot run a server, and the test server's user is unknown";
                note_skipped(test, why);
                return None;
            };
            let (user, group) = (owner.uid(), owner.gid());
            chown(folder.path(), Some(user), Some(group)).unwrap();
            Some((user, group))
        } else {
            None
        };
        Some(Self {
            programs,
            user,
            folder,
        })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PG")) {
            command.env_remove(name);
        }
        command.current_dir(self.folder.path()).env("LC_ALL", "C");
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let output = self.command(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{program}: {output:?}");
    }

    /// A new server with an empty database, and further settings.
    pub async fn primary(&self, settings: &[&str]) -> ClusterServer {
        let arguments = "-U postgres -A trust -E UTF8 --locale=C --no-sync -D primary";
        self.run("initdb", &arguments.split(' ').collect::<Vec<_>>());
        let server = self.start("primary", settings);
        let create = format!("create database {DATABASE}");
        let admin = server.maintenance().await;
        admin.batch_execute(&create).await.unwrap();
        server
    }

    /// A copy of a server's files, as they are now. `standby` prepares it to follow the server, under the
    /// name of the copy.
    pub fn back_up(&self, server: &ClusterServer, name: &str, standby: bool) {
        let source = format!(
            "host=127.0.0.1 port={} user=postgres application_name={name}",
            server.port
        );
        let mut arguments = vec![
            "--checkpoint=fast",
            "--no-sync",
            "--dbname",
            &source,
            "--pgdata",
            name,
        ];
        if standby {
            arguments.push("--write-recovery-conf");
        }
        self.run("pg_basebackup", &arguments);
    }

    /// Starts the server whose files are in the folder `name`, and waits until it answers queries.
    pub fn start(&self, name: &str, settings: &[&str]) -> ClusterServer {
        let port = free_port();
        let log = std::fs::File::create(self.path(&format!("{name}.log"))).unwrap();
        let mut command = self.command("postgres");
        command.args(["-D", name, "-c", &format!("port={port}")]);
        for setting in SETTINGS.iter().chain(settings) {
            command.args(["-c", setting]);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut server = ClusterServer {
            child,
            port,
            data: self.path(name),
        };
        let deadline = Instant::now() + TIMEOUT;
        let ready = || {
            let status = std::fs::read_to_string(server.data.join("postmaster.pid"));
            let status = status.unwrap_or_default();
            // The eighth line is the state: starting, standby, ready.
            let state = status.lines().nth(7).map(str::trim);
            matches!(state, Some("ready" | "standby"))
                && TcpStream::connect(("127.0.0.1", port)).is_ok()
        };
        while !ready() {
            let log = || std::fs::read_to_string(self.path(&format!("{name}.log"))).unwrap();
            let ended = server.child.try_wait().unwrap();
            assert!(ended.is_none(), "{name} has ended: {}", log());
            assert!(
                Instant::now() < deadline,
                "{name} does not start: {}",
                log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }
}

/// A running server, ended when dropped.
pub struct ClusterServer {
    child: Child,
    port: u16,
    data: PathBuf,
}

impl ClusterServer {
    fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The URL of the test's database.
    pub fn url(&self) -> String {
        self.url_of(DATABASE)
    }

    /// The test's database.
    pub fn database(&self) -> TestDatabase {
        TestDatabase::existing(self.url())
    }

    /// A connection to another database, which exists from the start.
    pub async fn maintenance(&self) -> db::Connection {
        let connected = db::connect(&config(&self.url_of("postgres")).database).await;
        connected.unwrap()
    }

    /// The URL of the test's database on either server, whichever accepts writes.
    pub fn url_with(&self, other: &Self, parameters: &str) -> String {
        format!(
            "postgres://postgres@127.0.0.1:{},127.0.0.1:{}/{DATABASE}{parameters}",
            self.port, other.port
        )
    }

    /// Ends all of its processes at once with SIGKILL, as if the machine had failed.
    pub fn kill(&mut self) {
        let server = self.child.id().to_string();
        // First the parent, which would replace the others.
        let mut ids = vec![server.clone()];
        ids.extend(children_of(&server));
        let _ = Command::new("kill").arg("-KILL").args(&ids).output();
        let _ = self.child.wait();
        self.remove_memory();
    }

    /// Removes the few bytes of shared memory that a killed server leaves behind.
    fn remove_memory(&self) {
        let status = std::fs::read_to_string(self.data.join("postmaster.pid")).unwrap_or_default();
        let id = status
            .lines()
            .nth(6)
            .and_then(|line| line.split_whitespace().nth(1));
        if let Some(id) = id {
            let _ = Command::new("ipcrm").args(["-m", id]).output();
        }
    }
}

impl Drop for ClusterServer {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // At once, but without leaving anything behind.
            let id = self.child.id().to_string();
            let _ = Command::new("kill").args(["-QUIT", &id]).output();
            let deadline = Instant::now() + TIMEOUT / 4;
            while let Ok(None) = self.child.try_wait() {
                if Instant::now() > deadline {
                    self.kill();
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// The process IDs of a process's children.
fn children_of(parent: &str) -> Vec<String> {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return vec![];
    };
    let is_child = |process: &std::fs::DirEntry| {
        let stat = std::fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        let fields = stat.rsplit_once(") ").map(|(_, fields)| fields.split(' '));
        fields.and_then(|mut fields| fields.nth(1)) == Some(parent)
    };
    processes
        .filter_map(Result::ok)
        .filter(is_child)
        .filter_map(|process| process.file_name().into_string().ok())
        .collect()
}
