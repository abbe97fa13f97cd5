//! No output shows a password or token, wherever it is given and whatever the mistake.

use std::process::{Command, Stdio};

use crate::support::UNREACHABLE;
use crate::support::program::{Run, command, inventory};
use crate::support::usage::Files;

/// The parts of the passwords in these tests, which occur nowhere else.
const PARTS: [&str; 2] = ["Zq7first", "Zq8rest"];

/// Two parts of a password with each special character between them.
fn passwords() -> impl Iterator<Item = String> {
    let [first, rest] = PARTS;
    [
        "",
        "@",
        "/",
        "?",
        "#",
        ":",
        "&",
        "%",
        " ",
        "'",
        "\"",
        "\\",
        "=",
        ",",
        ";",
        "$",
        "[",
        "@b=c@",
        "?a=b&c=d@",
        "%zz",
        "\u{e9}",
        "\t",
        "&=",
    ]
    .into_iter()
    .map(move |special| format!("{first}{special}{rest}"))
}

fn run(command: &mut Command) -> Run {
    command.stdin(Stdio::null()).output().unwrap().into()
}

fn assert_hidden(run: &Run, mistake: &str) {
    assert_ne!(run.status, 0, "{mistake} is accepted: {run:?}");
    assert!(!run.stderr.is_empty(), "{mistake}: no error: {run:?}");
    for part in PARTS {
        let output = format!("{}{}", run.stdout, run.stderr);
        assert!(!output.contains(part), "{mistake}: {run:?}");
    }
}

/// Connection strings whose password is `password`, right and wrong.
fn connection_strings(password: &str) -> [String; 8] {
    [
        format!("postgresql://me:{password}@127.0.0.1:1/db"),
        format!("postgresql://me:{password}@127.0.0.1:x/db"),
        format!("postgresql://me:{password}@127.0.0.1:1/db?nonsense=1"),
        format!("postgresql://me@127.0.0.1:1/db?password={password}&nonsense=1"),
        format!("mysql://me:{password}@127.0.0.1:1/db"),
        format!("host=127.0.0.1 port=1 user=me password={password}"),
        format!("host=127.0.0.1 port=x user=me password='{password}' dbname=db"),
        format!("password={password} nonsense=1"),
    ]
}

#[test]
fn a_password_in_a_connection_string_is_hidden() {
    for password in passwords() {
        for url in connection_strings(&password) {
            let arguments = ["migrate", "--check"];
            assert_hidden(&run(&mut command(&url, &arguments)), &url);
            let option = format!("--database-url={url}");
            let mut json = command(
                UNREACHABLE,
                &[&arguments[..], &[&option, "--log-format=json"]].concat(),
            );
            assert_hidden(&run(json.env("SIMUSAGE_LOG", "trace")), &option);
        }
    }
}

#[test]
fn a_connection_string_in_a_wrong_place_is_hidden() {
    let url = "postgresql://me:Zq7first@Zq8rest@127.0.0.1:1/db";
    for arguments in [
        &["serve", url] as &[&str],
        &["serve", "--listen", url],
        &["migrate", "--check", url],
        &["migrate", "--config", url],
        &["ingest", url],
        &["ingest", "--kafka", url],
        &["ingest", "--dry-run", "--inventory", url, url],
        &["--log-format", url, "migrate"],
        &["generate", "usage", "--inventory", url],
        &["token", "create", url, url],
        &[url],
    ] {
        assert_hidden(
            &run(&mut command(UNREACHABLE, arguments)),
            &format!("{arguments:?}"),
        );
    }
    for name in [
        "SIMUSAGE_SERVE_LISTEN",
        "SIMUSAGE_SERVE_METRICS_LISTEN",
        "SIMUSAGE_SERVE_POOL_SIZE",
        "SIMUSAGE_SERVE_ROLE",
        "SIMUSAGE_LOG_FORMAT",
        "SIMUSAGE_INGEST_DIRECT_COMPRESS",
        "SIMUSAGE_SERVE_TLS_KEY",
    ] {
        let mut command = command(UNREACHABLE, &["migrate", "--check"]);
        assert_hidden(&run(command.env(name, url)), name);
    }
}

#[test]
#[cfg(unix)]
fn a_variable_that_is_not_text_is_hidden() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    let value = OsStr::from_bytes(b"postgresql://me:Zq7first\xff@127.0.0.1:1/db");
    let mut migrate = command(UNREACHABLE, &["migrate", "--check"]);
    let failed = run(migrate.env("DATABASE_URL", value));
    assert_hidden(&failed, "invalid UTF-8");
    assert_eq!(failed.status, 2);
    assert!(
        failed.stderr.contains("DATABASE_URL is not valid UTF-8"),
        "{failed:?}"
    );
    // Variables of other programs do not matter.
    let mut help = command(UNREACHABLE, &["migrate", "--check"]);
    help.env("DATABASE_URL", "postgresql://me@127.0.0.1:1/db")
        .env("OTHER", value);
    assert_eq!(run(&mut help).status, 1);
}

#[test]
fn a_secret_in_a_settings_file_is_hidden() {
    let files = Files::new();
    for (section, key) in [
        ("kafka", "sasl_password"),
        ("kafka", "ssl_key_password"),
        ("database", "url"),
    ] {
        for line in [
            "KEY = Zq7firstZq8rest",
            "KEY = Zq7first Zq8rest",
            "KEY = \"Zq7firstZq8rest",
            "KEY = 'Zq7firstZq8rest",
            "KEY = 'Zq7first'Zq8rest'",
            "KEY = \"Zq7first\"Zq8rest\"",
            "KEY = \"Zq7first\\Zq8rest\"",
            "KEY = \"Zq7first\\u12Zq8rest\"",
            "KEY = 'Zq7first' 'Zq8rest'",
            "KEY Zq7firstZq8rest",
            "KEY: Zq7firstZq8rest",
            "KEY = [\"Zq7first\", \"Zq8rest\"]",
            "KEY = {Zq7first = \"Zq8rest\"}",
            "KEY = \"\"\"Zq7first\nZq8rest",
            "KEY = Zq7first#Zq8rest",
            "KEY = 'Zq7first'\nKEY = 'Zq8rest'",
            "KEY.Zq7first = 'Zq8rest'",
            "KEY = \"Zq7first\\u0000Zq8rest\"",
        ] {
            let text = format!("[{section}]\n{}\n", line.replace("KEY", key));
            let file = files.write("settings.toml", &text);
            let mut migrate = command(UNREACHABLE, &["migrate", "--check", "--config", &file]);
            let failed = run(migrate.env_remove("DATABASE_URL"));
            assert_hidden(&failed, &text);
            assert_eq!(failed.status, 2, "{text}: {failed:?}");
            assert!(failed.stderr.contains("settings.toml"), "{failed:?}");
        }
        for value in [
            "8237461",
            "82374.61",
            "true",
            "82374618237461823746182374618237461",
            "1979-05-27",
        ] {
            let file = files.write("settings.toml", format!("[{section}]\n{key} = {value}\n"));
            let mut migrate = command(UNREACHABLE, &["migrate", "--check", "--config", &file]);
            let failed = run(migrate.env_remove("DATABASE_URL"));
            let shown = failed.stderr.contains("82374") || failed.stderr.contains("1979");
            assert!(failed.status == 2 && !shown, "{failed:?}");
        }
    }
    let file = files.write("settings.toml", "[kafka]\nsasl_password = 123456\n");
    let failed = run(&mut command(UNREACHABLE, &["migrate", "--config", &file]));
    let expected = format!(
        "simusage: {file}: kafka.sasl_password: the value is not text; write it in quotes\n"
    );
    assert_eq!(failed.stderr, expected);
    let file = files.write("settings.toml", "[kafka]\n\nsasl_password = Zq7first\n");
    let failed = run(&mut command(UNREACHABLE, &["migrate", "--config", &file]));
    let expected = format!(
        "simusage: {file} is not valid TOML: line 3, column 17: string values must be quoted, expected \
         literal string; correct this line\n"
    );
    assert_eq!(failed.stderr, expected);
}

#[test]
fn a_password_for_kafka_is_hidden() {
    let inventory = inventory();
    let generate = |settings: &[(&str, &str)]| {
        let mut command = command(
            UNREACHABLE,
            &[
                "generate",
                "usage",
                "--records=1",
                "--topic=usage",
                "--kafka=127.0.0.1:1",
                "--inventory",
                inventory.to_str().unwrap(),
            ],
        );
        // None of these reaches a broker.
        for (name, value) in settings {
            command.env(format!("SIMUSAGE_KAFKA_{name}"), value);
        }
        run(command.env("SIMUSAGE_LOG", "debug"))
    };
    for password in passwords() {
        let wrong = [
            &[
                ("SECURITY_PROTOCOL", "nonsense"),
                ("SASL_PASSWORD", &*password),
            ] as &[_],
            &[
                ("SECURITY_PROTOCOL", "sasl_plaintext"),
                ("SASL_MECHANISM", "nonsense"),
                ("SASL_PASSWORD", &*password),
            ],
            &[
                ("SECURITY_PROTOCOL", "ssl"),
                ("SSL_KEY_LOCATION", "/nonexistent"),
                ("SSL_KEY_PASSWORD", &*password),
            ],
            &[("PASSWORD", &*password)],
            &[("SASL_PASSWORD", &*password), ("SESSION_TIMEOUT_MS", "x")],
        ];
        for settings in wrong {
            assert_hidden(&generate(settings), &format!("{settings:?}"));
        }
    }
}

#[test]
fn a_token_in_place_of_its_name_is_hidden() {
    let token = "simusage_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    for arguments in [
        &["token", token] as &[&str],
        &["ingest", token],
        &["migrate", token],
    ] {
        let failed = run(&mut command("postgresql://me@127.0.0.1:1/db", arguments));
        assert!(
            failed.status != 0 && !failed.stderr.contains("0123456789abcdef"),
            "{failed:?}"
        );
    }
}

#[test]
fn errors_have_no_control_characters_and_a_bounded_length() {
    let text = format!("a\u{1b}]0;title\u{7}\r\n\u{202e}{}", "x".repeat(100_000));
    for arguments in [
        &["migrate", "--config", &text] as &[&str],
        &["serve", "--listen", &text],
        &["migrate", &text],
        &["ingest", "--format", &text, "x"],
        &["generate", "usage", "--inventory", &text],
    ] {
        for format in ["text", "json"] {
            let mut failing = command(UNREACHABLE, arguments);
            let failed = run(failing.env("SIMUSAGE_LOG_FORMAT", format));
            assert_ne!(failed.status, 0, "{failed:?}");
            let (stderr, control) = (&failed.stderr, ['\u{1b}', '\u{7}', '\r', '\u{202e}']);
            let is_safe = !stderr.contains(control) && stderr.len() < 20_000;
            assert!(
                is_safe,
                "{arguments:?}: {} bytes: {stderr:.300}",
                stderr.len()
            );
        }
    }
}
