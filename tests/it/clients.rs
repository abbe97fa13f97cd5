//! Clients generated from the OpenAPI description compile, and get the expected answers.
//!
//! `make test-clients` installs openapi-generator. Each test also needs the tools of its language.

use std::path::{Path, PathBuf};
use std::process::Command;

use simusage::http::openapi::description;

use crate::support::program::{load_inventory, simusage};
use crate::support::server::Server;
use crate::support::usage::{Files, ndjson};
use crate::support::{TestDatabase, note_skipped};

/// Where `make test-clients` puts the generators.
fn generators() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients")
}

/// A folder for generated code, which keeps what was built from it before.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("clients")
        .join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// A command in a folder.
fn command(program: impl AsRef<std::ffi::OsStr>, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder);
    command
}

/// Generates a client, and copies a program of `tests/clients` to a place within it. Returns `None`
/// after noting that the test is skipped, if a tool is missing.
fn generate(generator: &str, program: &str, to: &str, tools: &[&str]) -> Option<PathBuf> {
    let jar = generators().join("openapi-generator-cli.jar");
    let what = format!("the generated client {generator}");
    if !jar.exists() {
        note_skipped(&what, "`make test-clients` has not been run");
        return None;
    }
    let has = |tool: &&&str| Command::new(tool).arg("--version").output().is_ok();
    if let Some(missing) = ["java"].iter().chain(tools).find(|tool| !has(tool)) {
        note_skipped(&what, &format!("{missing} is not installed"));
        return None;
    }
    let folder = folder(generator);
    let api = folder.join("openapi.json");
    std::fs::write(&api, description()).unwrap();
    let library: &[&str] = if generator == "java" {
        &["--library", "native"]
    } else {
        &[]
    };
    run(Command::new("java")
        .arg("-jar")
        .arg(jar)
        .args(["generate", "-g", generator, "-i"])
        .arg(&api)
        .arg("-o")
        .arg(&folder)
        .args(library));
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/clients")
        .join(program);
    let target = folder.join(to);
    std::fs::create_dir_all(target.parent().unwrap()).unwrap();
    std::fs::copy(source, target).unwrap();
    Some(folder)
}

/// Starts a server with usage. The database must outlive it.
async fn start() -> (Server, TestDatabase) {
    let database = TestDatabase::migrated().await;
    load_inventory(database.url());
    let files = Files::new();
    let file = files.write("usage.ndjson", ndjson(0..200));
    assert_eq!(simusage(database.url(), &["ingest", &file]).status, 3);
    (Server::start(database.url()), database)
}

fn url(server: &Server) -> String {
    format!("http://{}", server.address())
}

/// Asserts that a client's program printed what `curl` would have shown.
fn assert_printed(server: &Server, printed: &str) {
    let body = |path: &str| -> serde_json::Value {
        let answer = server.get(path);
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    };
    let series = body(
        "/api/v1/organization/a01b7/usage?start=2020-02-01&end=2020-02-02T12:00:00Z&every=1hour",
    );
    let totals = body("/api/v1/usage/organizations");
    let page = body("/api/v1/inventory?page=2&size=3");
    let lines: Vec<&str> = printed.lines().filter(|line| !line.is_empty()).collect();
    let expected = [
        format!(
            "series {} {}",
            series["items"][0]["date"].as_str().unwrap(),
            series["bytes-used-total"]
        ),
        format!(
            "organizations {}",
            totals["items"].as_array().unwrap().len()
        ),
        format!("page 2 {}", page["items"][0]["simcard"].as_str().unwrap()),
    ];
    assert_eq!(lines[..3], expected, "{printed}");
    assert!(
        lines[3].starts_with("404 ") && lines[3].contains("No organization nobody found!"),
        "{printed}"
    );
}

#[tokio::test]
async fn a_rust_client() {
    let Some(folder) = generate("rust", "main.rs", "src/bin/main.rs", &["cargo"]) else {
        return;
    };
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    // Its own workspace, and a runtime for the program.
    let manifest = manifest.replace(
        "[dependencies]\n",
        "[workspace]\n\n[dependencies]\ntokio = { version = \"1\", features = [\"macros\", \"rt\"] }\n",
    );
    std::fs::write(folder.join("Cargo.toml"), manifest).unwrap();
    let (server, _database) = start().await;
    let arguments = [
        "run",
        "--quiet",
        "--no-default-features",
        "--bin",
        "main",
        "--",
        &url(&server),
    ];
    let printed =
        run(command("cargo", &folder, &arguments).env("CARGO_TARGET_DIR", folder.join("target")));
    assert_printed(&server, &printed);
}

#[tokio::test]
async fn a_go_client() {
    let Some(folder) = generate("go", "main.go", "cmd/main.go", &["go"]) else {
        return;
    };
    let (server, _database) = start().await;
    let printed = run(&mut command(
        "go",
        &folder,
        &["run", "-mod=mod", "./cmd", &url(&server)],
    ));
    assert_printed(&server, &printed);
}

#[tokio::test]
async fn a_typescript_client() {
    let Some(folder) = generate("typescript-fetch", "main.ts", "main.ts", &["node", "npm"]) else {
        return;
    };
    run(&mut command(
        "npm",
        &folder,
        &[
            "install",
            "--no-save",
            "--no-audit",
            "--no-fund",
            "typescript@5.9.3",
        ],
    ));
    let compile = [
        "tsc",
        "--strict",
        "--target",
        "es2022",
        "--lib",
        "es2022,dom",
        "--module",
        "commonjs",
        "--outDir",
        "built",
        "main.ts",
    ];
    run(&mut command("npx", &folder, &compile));
    let (server, _database) = start().await;
    let printed = run(&mut command(
        "node",
        &folder,
        &["built/main.js", &url(&server)],
    ));
    assert_printed(&server, &printed);
}

#[tokio::test]
async fn a_java_client() {
    let Some(folder) = generate("java", "Main.java", "src/main/java/Main.java", &["mvn"]) else {
        return;
    };
    let (server, _database) = start().await;
    let program = format!("-Dexec.args={}", url(&server));
    let arguments = [
        "--quiet",
        "--batch-mode",
        "-Dstyle.color=never",
        "compile",
        "org.codehaus.mojo:exec-maven-plugin:3.5.0:java",
        "-Dexec.mainClass=Main",
        &program,
    ];
    let printed = run(&mut command("mvn", &folder, &arguments));
    assert_printed(&server, &printed);
}

#[tokio::test]
async fn two_python_clients() {
    let Some(folder) = generate("python", "main.py", "main.py", &["python3"]) else {
        return;
    };
    let python = generators().join("venv/bin/python");
    run(&mut command(
        &python,
        &folder,
        &["-m", "pip", "install", "--quiet", "."],
    ));
    let (server, _database) = start().await;
    assert_printed(
        &server,
        &run(&mut command(&python, &folder, &["main.py", &url(&server)])),
    );

    let other = self::folder("openapi-python-client");
    let api = folder.join("openapi.json");
    let client = other.join("client");
    run(
        Command::new(generators().join("venv/bin/openapi-python-client"))
            .args(["generate", "--overwrite", "--meta", "none", "--path"])
            .arg(&api)
            .arg("--output-path")
            .arg(client.join("simusage_client")),
    );
    let source =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/openapi_python_client.py");
    let printed = run(
        command(&python, &client, &[source.to_str().unwrap(), &url(&server)])
            .env("PYTHONPATH", &client),
    );
    assert_printed(&server, &printed);
}
