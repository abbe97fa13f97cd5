//! Runs `simusage serve` as a child process, with a minimal HTTP client.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::program::command;

/// A running server, killed when dropped.
pub struct Server {
    child: Child,
    address: String,
    logged: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Starts a server on a free port, with the database at `url`.
    pub fn start(url: &str) -> Self {
        Self::start_with(url, &[], &[])
    }

    /// Starts a server with further arguments and environment variables.
    pub fn start_with(url: &str, arguments: &[&str], settings: &[(&str, &str)]) -> Self {
        let mut command = command(url, &[&["serve"], arguments].concat());
        command
            .env("SIMUSAGE_SERVE_LISTEN", "127.0.0.1:0")
            .envs(settings.iter().copied());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let logged = Arc::new(Mutex::new(vec![]));
        let address = loop {
            let line = lines
                .next()
                .unwrap_or_else(|| panic!("the server exited: {logged:?}"))
                .unwrap();
            let url = line
                .split_once("listening on ")
                .and_then(|(_, url)| url.split_once("://"));
            let address = url.map(|(_, address)| {
                address
                    .trim_end_matches(|c: char| !c.is_ascii_digit())
                    .to_owned()
            });
            logged.lock().unwrap().push(line);
            if let Some(address) = address {
                break address;
            }
        };
        // Keep reading, or the server blocks once the pipe is full.
        let log = Arc::clone(&logged);
        std::thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .for_each(|line| log.lock().unwrap().push(line));
        });
        Self {
            child,
            address,
            logged,
        }
    }

    /// The address it listens on, as `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Opens a connection that has sent nothing yet.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_mins(1)))
            .unwrap();
        stream
    }

    /// Sends a GET request and returns the connection, from which [`read`] reads the response.
    pub fn send(&self, path: &str) -> TcpStream {
        self.send_with(path, "")
    }

    /// Sends a GET request with further header lines, each ending in CRLF.
    pub fn send_with(&self, path: &str, headers: &str) -> TcpStream {
        send_to(&self.address, path, headers)
    }

    /// The response to a GET request, including its header.
    pub fn get(&self, path: &str) -> String {
        read(self.send(path))
    }

    /// The status of the response to a request with a token.
    pub fn status_as(&self, token: &str, path: &str) -> u16 {
        status(&read(self.send_with(
            path,
            &format!("authorization: Bearer {token}\r\n"),
        )))
    }

    /// Waits for a log line that contains `text`, and returns the first one.
    pub fn until_logged(&self, text: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let found = self.logged().into_iter().find(|line| line.contains(text));
            if let Some(line) = found {
                return line;
            }
            assert!(
                Instant::now() < deadline,
                "no log line contains '{text}': {:#?}",
                self.logged()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// All lines logged so far.
    pub fn logged(&self) -> Vec<String> {
        self.logged.lock().unwrap().clone()
    }

    /// The peak of the memory it has used, in bytes.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = peak.unwrap().trim().trim_end_matches(" kB");
        kilobytes.parse::<u64>().unwrap() * 1_024
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args([name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    pub fn wait(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail if the server has already exited.
        let _ = (self.child.kill(), self.child.wait());
    }
}

fn send_to(address: &str, path: &str, headers: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_mins(1)))
        .unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{headers}\r\n"
    )
    .unwrap();
    stream
}

/// The response of any server to a GET request, including its header.
pub fn get_from(address: &str, path: &str) -> String {
    read(send_to(address, path, ""))
}

/// Reads a response until the server closes the connection.
pub fn read(mut stream: TcpStream) -> String {
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

/// The status of a response.
pub fn status(response: &str) -> u16 {
    response
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or_else(|| panic!("invalid response: {response}"))
}
