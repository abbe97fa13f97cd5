//! A TCP proxy in front of the database that can block or cut connections, also at a COMMIT.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the proxy does to a COMMIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// Forwards it.
    Pass,
    /// Cuts the connection before the server receives it.
    LoseRequest,
    /// Cuts the connection after the server has committed, before the client receives the response.
    LoseAnswer,
    /// Does not forward it, and ends the session as `TimescaleDB` does after another session has
    /// updated the extension.
    EndSession,
}

/// The error with which `TimescaleDB` ends a session.
const OTHER_VERSION: &[u8] =
    b"SFATAL\0VFATAL\0C42710\0M\"timescaledb\" already loaded with a different version\0\0";

/// A proxy that runs until the test process exits.
pub struct Proxy {
    url: String,
    state: Arc<State>,
}

struct State {
    server: String,
    down: AtomicU8,
    /// Whether requests wait in the proxy.
    held: AtomicBool,
    accepted: AtomicUsize,
    /// A [`Commit`].
    commit: AtomicU8,
    /// The number of COMMITs to forward before `commit` applies.
    countdown: AtomicUsize,
    open: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// Starts a proxy for the database at `url`.
    pub fn start(url: &str) -> Self {
        let (front, rest) = url.split_once('@').expect("the URL names a user");
        let (server, path) = rest.split_once('/').expect("the URL names a database");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("{front}@{}/{path}", listener.local_addr().unwrap());
        let state = Arc::new(State {
            server: server.to_owned(),
            down: AtomicU8::new(0),
            held: AtomicBool::new(false),
            accepted: AtomicUsize::new(0),
            commit: AtomicU8::new(0),
            countdown: AtomicUsize::new(0),
            open: Mutex::new(vec![]),
        });
        let acceptor = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if acceptor.down.load(Ordering::SeqCst) == 0 {
                    acceptor.accepted.fetch_add(1, Ordering::SeqCst);
                    let state = Arc::clone(&acceptor);
                    std::thread::spawn(move || state.connect(client));
                }
            }
        });
        Self { url, state }
    }

    /// The URL of the database through the proxy.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The number of connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.state.accepted.load(Ordering::SeqCst)
    }

    /// Cuts all connections and refuses new ones.
    pub fn go_down(&self) {
        self.state.down.store(1, Ordering::SeqCst);
        for stream in self.state.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Accepts connections again.
    pub fn come_back(&self) {
        self.state.down.store(0, Ordering::SeqCst);
    }

    /// Makes all requests wait in the proxy, or forwards them again. Connections stay open.
    pub fn hold(&self, held: bool) {
        self.state.held.store(held, Ordering::SeqCst);
    }

    /// Forwards `passing` COMMITs, then does `commit` to the next one.
    pub fn at_commit(&self, passing: usize, commit: Commit) {
        self.state.countdown.store(passing, Ordering::SeqCst);
        self.state.commit.store(commit as u8, Ordering::SeqCst);
    }

    /// Whether the action of [`Self::at_commit`] has happened.
    pub fn has_cut(&self) -> bool {
        self.state.commit.load(Ordering::SeqCst) == Commit::Pass as u8
    }
}

/// The size of a message's type and length.
const HEADER: usize = 5;

fn position_of_commit(bytes: &[u8]) -> Option<usize> {
    bytes.windows(7).position(|window| window == b"COMMIT\0")
}

impl State {
    fn connect(&self, client: TcpStream) {
        let Ok(server) = TcpStream::connect(&self.server) else {
            return;
        };
        // Without this, small packets wait until the other side acknowledges the one before.
        client
            .set_nodelay(true)
            .and(server.set_nodelay(true))
            .unwrap();
        self.open
            .lock()
            .unwrap()
            .extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
        let (mut responses, mut back) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        let lost = Arc::new(AtomicU8::new(0));
        let lose_responses = Arc::clone(&lost);
        std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while let Ok(read @ 1..) = responses.read(&mut buffer) {
                if lose_responses.load(Ordering::SeqCst) == 1
                    || back.write_all(&buffer[..read]).is_err()
                {
                    break;
                }
            }
            let _ = (
                responses.shutdown(Shutdown::Both),
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
                Commit::EndSession => {
                    // What was sent with the COMMIT is answered first.
                    let at = position_of_commit(&buffer[..read]).unwrap() - HEADER;
                    let _ = server.write_all(&buffer[..at]);
                    std::thread::sleep(Duration::from_millis(100));
                    let length = u32::try_from(OTHER_VERSION.len() + 4).unwrap();
                    let packet = [b"E", &length.to_be_bytes()[..], OTHER_VERSION].concat();
                    let _ = client.write_all(&packet);
                    break;
                }
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

    /// The action for a request; [`Commit::Pass`] unless it contains the COMMIT to act on.
    fn commit_in(&self, bytes: &[u8]) -> Commit {
        let planned = self.commit.load(Ordering::SeqCst);
        if planned == Commit::Pass as u8 || position_of_commit(bytes).is_none() {
            return Commit::Pass;
        }
        if self.countdown.load(Ordering::SeqCst) > 0 {
            self.countdown.fetch_sub(1, Ordering::SeqCst);
            return Commit::Pass;
        }
        self.commit.store(Commit::Pass as u8, Ordering::SeqCst);
        [Commit::LoseRequest, Commit::EndSession]
            .into_iter()
            .find(|commit| *commit as u8 == planned)
            .unwrap_or(Commit::LoseAnswer)
    }
}
