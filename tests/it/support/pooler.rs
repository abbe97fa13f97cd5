//! Starts `PgBouncer` or `HAProxy` in front of the test server, where they are installed.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::note_skipped;

/// Finds a program on the PATH, or where Debian installs servers. A variable such as
/// `SIMUSAGE_TEST_PGBOUNCER` names another.
pub fn installed(program: &str) -> Option<PathBuf> {
    let variable = format!("SIMUSAGE_TEST_{}", program.to_uppercase());
    if let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()) {
        return Some(path.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// The program, or `None` after noting that the test is skipped.
pub fn installed_or_skip(program: &str, test: &str) -> Option<PathBuf> {
    let found = installed(program);
    if found.is_none() {
        note_skipped(test, &format!("{program} is not installed"));
    }
    found
}

/// The version of `PgBouncer`, as (1, 18).
pub fn pgbouncer_version(program: &PathBuf) -> (u32, u32) {
    let output = Command::new(program).arg("--version").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let version = text
        .lines()
        .next()
        .unwrap()
        .trim_start_matches("PgBouncer ");
    let mut numbers = version.split('.').map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// A free TCP port.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A program that forwards connections to a database, killed when dropped.
pub struct Forwarder {
    command: Box<dyn Fn() -> Command>,
    child: Child,
    port: u16,
    url: String,
    _folder: TempDir,
}

impl Forwarder {
    /// Starts `PgBouncer` in front of the database at `url`, with further lines for its settings.
    pub fn pgbouncer(program: PathBuf, url: &str, settings: &str) -> Self {
        let (user, server, database) = parts(url);
        let (host, server_port) = server.split_once(':').unwrap();
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let users = folder.path().join("users.txt");
        std::fs::write(&users, format!("\"{user}\" \"\"\n")).unwrap();
        let file = folder.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\n\
             {database} = host={host} port={server_port}\n\
             [pgbouncer]\n\
             listen_addr = 127.0.0.1\n\
             listen_port = {port}\n\
             unix_socket_dir =\n\
             auth_type = trust\n\
             auth_file = {}\n\
             {settings}\n",
            users.display()
        );
        std::fs::write(&file, text).unwrap();
        let command = move || {
            let mut command = Command::new(&program);
            // As root it refuses to start without another user to switch to.
            if is_root() {
                command.args(["-u", "nobody"]);
            }
            command.arg(&file);
            command
        };
        make_readable(&folder);
        Self::start(Box::new(command), folder, port, url)
    }

    /// Starts `HAProxy` in front of the database at `url`. Its first server is down.
    pub fn haproxy(program: PathBuf, url: &str) -> Self {
        let (_, server, _) = parts(url);
        let folder = tempfile::tempdir().unwrap();
        let (port, closed) = (free_port(), free_port());
        let file = folder.path().join("haproxy.cfg");
        let text = format!(
            "defaults\n  mode tcp\n  timeout connect 1s\n  timeout client 1m\n  timeout server 1m\n\
             listen database\n  bind 127.0.0.1:{port}\n  option redispatch 1\n\
             \x20 server down 127.0.0.1:{closed} check inter 100ms fall 1\n\
             \x20 server up {server} check inter 100ms backup\n"
        );
        std::fs::write(&file, text).unwrap();
        let command = move || {
            let mut command = Command::new(&program);
            command.arg("-db").arg("-f").arg(&file);
            command
        };
        Self::start(Box::new(command), folder, port, url)
    }

    fn start(command: Box<dyn Fn() -> Command>, folder: TempDir, port: u16, url: &str) -> Self {
        let (_, server, _) = parts(url);
        let child = spawn(&command, port);
        Self {
            command,
            child,
            port,
            url: url.replacen(server, &format!("127.0.0.1:{port}"), 1),
            _folder: folder,
        }
    }

    /// The URL of the database through it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Ends all connections, and starts again.
    pub fn restart(&mut self) {
        let _ = (self.child.kill(), self.child.wait());
        self.child = spawn(&self.command, self.port);
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        // Both fail if it has already exited.
        let _ = (self.child.kill(), self.child.wait());
    }
}

/// Starts the program, and waits until it accepts connections.
fn spawn(command: &dyn Fn() -> Command, port: u16) -> Child {
    let mut child = command()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(child.try_wait().unwrap().is_none(), "it does not start");
        assert!(Instant::now() < deadline, "it accepts no connections");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().unwrap();
    output.stdout == b"0\n"
}

/// Lets every user read the files of a folder.
fn make_readable(folder: &TempDir) {
    use std::os::unix::fs::PermissionsExt as _;
    let permissions = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), permissions).unwrap();
}

/// User, `host:port` and database of a URL.
fn parts(url: &str) -> (&str, &str, &str) {
    let (_, rest) = url.split_once("://").unwrap();
    let (user, rest) = rest.split_once('@').expect("the URL names a user");
    let user = user.split(':').next().unwrap();
    let (server, database) = rest.split_once('/').expect("the URL names a database");
    (user, server, database.split('?').next().unwrap())
}
