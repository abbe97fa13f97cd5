//! `make demo` leaves no process and no folder, however it ends.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::pooler::free_port;
use crate::support::server::{get_from, status};

/// The processes with this text in their environment.
fn processes(marker: &str) -> Vec<String> {
    let folders = std::fs::read_dir("/proc").unwrap().flatten();
    folders
        .filter_map(|folder| {
            let environment = std::fs::read(folder.path().join("environ")).ok()?;
            if !String::from_utf8_lossy(&environment).contains(marker) {
                return None;
            }
            let command = std::fs::read(folder.path().join("cmdline")).ok()?;
            Some(String::from_utf8_lossy(&command).replace('\0', " "))
        })
        .collect()
}

#[test]
fn nothing_is_left_of_the_demo_however_it_ends() {
    // While the database starts, and while the server runs.
    for (signal, at) in [("TERM", "Starting"), ("TERM", "Ctrl-C"), ("KILL", "Ctrl-C")] {
        let folder = tempfile::tempdir().unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let mut demo = Command::new("bash")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/demo.sh"))
            .env("SIMUSAGE", env!("CARGO_BIN_EXE_simusage"))
            .env("SIMUSAGE_SERVE_LISTEN", &address)
            .env("TMPDIR", folder.path())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains(at)), "{at}");
        if at == "Ctrl-C" {
            assert_eq!(status(&get_from(&address, "/livez")), 200);
        }
        let marker = format!("TMPDIR={}", folder.path().display());
        assert!(!processes(&marker).is_empty());
        // As from `make` and a terminal, which may both send it.
        for _ in 0..2 {
            let group = format!("-{}", demo.id());
            let arguments = ["-s", signal, "--", &group];
            Command::new("kill").args(arguments).status().unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
        demo.wait().unwrap();
        let deadline = Instant::now() + Duration::from_mins(1);
        while !processes(&marker).is_empty() || folder.path().read_dir().unwrap().count() > 0 {
            let left = processes(&marker);
            assert!(
                Instant::now() < deadline,
                "{signal} {at}: {left:?} are left"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
