//! A TCP proxy in front of the database, to cut its connections where it hurts.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What happens to a COMMIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// It passes.
    Pass,
    /// It is lost on its way to the server, and so is the connection.
    LoseRequest,
    /// The server commits, and its answer is lost with the connection.
    LoseAnswer,
}

/// The proxy. It lives as long as the test.
pub struct Proxy {
    url: String,
    state: Arc<State>,
}

struct State {
    server: String,
    down: AtomicU8,
    /// Whether nothing passes to the server now, though connections stay.
    held: AtomicBool,
    /// How many connections it has taken.
    taken: AtomicUsize,
    commit: AtomicU8,
    /// How many more COMMITs pass before one does not.
    countdown: AtomicUsize,
    open: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// A proxy for the database at `url`.
    pub fn start(url: &str) -> Self {
        let (front, rest) = url.split_once('@').expect("the URL names a user");
        let (server, path) = rest.split_once('/').expect("the URL names a database");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("{front}@{}/{path}", listener.local_addr().unwrap());
        let state = Arc::new(State {
            server: server.to_owned(),
            down: AtomicU8::new(0),
            held: AtomicBool::new(false),
            taken: AtomicUsize::new(0),
            commit: AtomicU8::new(0),
            countdown: AtomicUsize::new(0),
            open: Mutex::new(vec![]),
        });
        let accepting = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if accepting.down.load(Ordering::SeqCst) == 0 {
                    accepting.taken.fetch_add(1, Ordering::SeqCst);
                    let state = Arc::clone(&accepting);
                    std::thread::spawn(move || state.join(client));
                }
            }
        });
        Self { url, state }
    }

    /// The URL by which the database is reached through the proxy.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How many connections it has taken.
    pub fn taken(&self) -> usize {
        self.state.taken.load(Ordering::SeqCst)
    }

    /// Cuts every connection and takes no new one.
    pub fn go_down(&self) {
        self.state.down.store(1, Ordering::SeqCst);
        for stream in self.state.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Takes connections again.
    pub fn come_back(&self) {
        self.state.down.store(0, Ordering::SeqCst);
    }

    /// Lets nothing through to the server, or everything again; connections stay.
    pub fn hold(&self, held: bool) {
        self.state.held.store(held, Ordering::SeqCst);
    }

    /// Says what happens to a COMMIT, once, after `passing` others.
    pub fn at_commit(&self, passing: usize, commit: Commit) {
        self.state.countdown.store(passing, Ordering::SeqCst);
        self.state.commit.store(commit as u8, Ordering::SeqCst);
    }

    /// Whether the COMMIT that something was to happen to has come.
    pub fn has_cut(&self) -> bool {
        self.state.commit.load(Ordering::SeqCst) == Commit::Pass as u8
    }
}

impl State {
    fn join(&self, client: TcpStream) {
        let Ok(server) = TcpStream::connect(&self.server) else {
            return;
        };
        // What comes in small pieces would else wait for the other side's word on the piece before.
        client
            .set_nodelay(true)
            .and(server.set_nodelay(true))
            .unwrap();
        self.open
            .lock()
            .unwrap()
            .extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
        let (mut answers, mut back) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        let lost = Arc::new(AtomicU8::new(0));
        let losing = Arc::clone(&lost);
        std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while let Ok(read @ 1..) = answers.read(&mut buffer) {
                if losing.load(Ordering::SeqCst) == 1 || back.write_all(&buffer[..read]).is_err() {
                    break;
                }
            }
            let _ = (
                answers.shutdown(Shutdown::Both),
                back.shutdown(Shutdown::Both),
            );
        });
        self.forward(client, server, &lost);
    }

    fn forward(&self, mut client: TcpStream, mut server: TcpStream, lost: &AtomicU8) {
        let mut buffer = vec![0; 65_536];
        while let Ok(read @ 1..) = client.read(&mut buffer) {
            while self.held.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
            match self.commit_in(&buffer[..read]) {
                Commit::Pass => {}
                Commit::LoseRequest => break,
                Commit::LoseAnswer => lost.store(1, Ordering::SeqCst),
            }
            if server.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        if lost.load(Ordering::SeqCst) == 0 {
            let _ = (
                client.shutdown(Shutdown::Both),
                server.shutdown(Shutdown::Both),
            );
        }
    }

    /// What is to happen to the COMMIT in these bytes, if there is one.
    fn commit_in(&self, bytes: &[u8]) -> Commit {
        let planned = self.commit.load(Ordering::SeqCst);
        let has_commit = bytes.windows(7).any(|window| window == b"COMMIT\0");
        if planned == Commit::Pass as u8 || !has_commit {
            return Commit::Pass;
        }
        if self.countdown.load(Ordering::SeqCst) > 0 {
            self.countdown.fetch_sub(1, Ordering::SeqCst);
            return Commit::Pass;
        }
        self.commit.store(Commit::Pass as u8, Ordering::SeqCst);
        if planned == Commit::LoseRequest as u8 {
            Commit::LoseRequest
        } else {
            Commit::LoseAnswer
        }
    }
}
