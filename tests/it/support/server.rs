//! `simusage serve` as a process.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::program::command;

/// A running server. It is killed where a test ends without waiting for it.
pub struct Server {
    child: Child,
    address: String,
    logged: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// A server on a free port, with the database at `url`.
    pub fn start(url: &str) -> Self {
        Self::start_with(url, &[], &[])
    }

    /// The same with further arguments, and settings by their variables.
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
                .unwrap_or_else(|| panic!("the server ended: {logged:?}"))
                .unwrap();
            let place = line
                .split_once("listening on ")
                .and_then(|(_, place)| place.split_once("://"));
            let address = place.map(|(_, address)| {
                address
                    .trim_end_matches(|c: char| !c.is_ascii_digit())
                    .to_owned()
            });
            logged.lock().unwrap().push(line);
            if let Some(address) = address {
                break address;
            }
        };
        // The pipe would fill up if nobody read.
        let logging = Arc::clone(&logged);
        std::thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .for_each(|line| logging.lock().unwrap().push(line));
        });
        Self {
            child,
            address,
            logged,
        }
    }

    /// Where it answers.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A connection to it.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_mins(1)))
            .unwrap();
        stream
    }

    /// Sends a request, and gives the connection on which the answer will come.
    pub fn send(&self, path: &str) -> TcpStream {
        self.send_with(path, "")
    }

    /// The same with further header lines.
    pub fn send_with(&self, path: &str, headers: &str) -> TcpStream {
        send_to(&self.address, path, headers)
    }

    /// The whole answer to a request, with its head.
    pub fn get(&self, path: &str) -> String {
        read(self.send(path))
    }

    /// The status that a request with a token is answered with.
    pub fn status_as(&self, token: &str, path: &str) -> u16 {
        status(&read(self.send_with(
            path,
            &format!("authorization: Bearer {token}\r\n"),
        )))
    }

    /// The first line it logged, or logs soon, that has the text.
    pub fn until_logged(&self, text: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let found = self.logged().into_iter().find(|line| line.contains(text));
            if let Some(line) = found {
                return line;
            }
            assert!(
                Instant::now() < deadline,
                "no line with '{text}' in {:#?}",
                self.logged()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// All it logged so far.
    pub fn logged(&self) -> Vec<String> {
        self.logged.lock().unwrap().clone()
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
        // Neither can fail in a way that matters: it may have ended already.
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

/// The whole answer of any server.
pub fn get_from(address: &str, path: &str) -> String {
    read(send_to(address, path, ""))
}

/// Reads an answer to its end.
pub fn read(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The status of an answer.
pub fn status(answer: &str) -> u16 {
    answer
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or_else(|| panic!("no answer: {answer}"))
}
