//! libpq's password file, `.pgpass`.

use std::path::Path;

/// Where PostgreSQL's Unix socket is by default, in Debian's packages and in others.
pub(super) const SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// What a password file has for a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The password of the first line that matches.
    Password(String),
    /// Nothing: others may read the file, so it is ignored, as libpq does.
    Exposed,
    /// No line matches, or there is no file.
    Nothing,
}

/// Looks up the password of a connection.
pub(super) fn look_up(file: &Path, host: &str, port: u16, database: &str, user: &str) -> Found {
    let Ok(metadata) = std::fs::metadata(file) else {
        return Found::Nothing;
    };
    let Ok(text) = std::fs::read_to_string(file) else {
        return Found::Nothing;
    };
    // As in libpq, a Unix socket in the default directory is localhost.
    let host = if SOCKET_DIRECTORIES.contains(&host) {
        "localhost"
    } else {
        host
    };
    let wanted = [host, &port.to_string(), database, user];
    let Some(password) = text.lines().find_map(|line| password_of(line, &wanted)) else {
        return Found::Nothing;
    };
    if metadata.is_file() && is_exposed(&metadata) {
        return Found::Exposed;
    }
    Found::Password(password)
}

#[cfg(unix)]
fn is_exposed(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    metadata.permissions().mode() & 0o077 != 0
}

#[cfg(not(unix))]
fn is_exposed(_: &std::fs::Metadata) -> bool {
    false
}

/// The password of a line `host:port:database:user:password`, if its first fields match.
fn password_of(line: &str, wanted: &[&str; 4]) -> Option<String> {
    if line.starts_with('#') {
        return None;
    }
    let mut rest = line;
    for wanted in wanted {
        let (field, after) = take_field(rest);
        rest = after?;
        if field != "*" && unescaped(field) != *wanted {
            return None;
        }
    }
    let (password, _) = take_field(rest);
    (!password.is_empty()).then(|| unescaped(password))
}

/// The text up to the next colon without a backslash, and the text after it.
fn take_field(text: &str) -> (&str, Option<&str>) {
    let mut is_escaped = false;
    for (at, letter) in text.char_indices() {
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            ':' => return (&text[..at], Some(&text[at + 1..])),
            _ => {}
        }
    }
    (text, None)
}

fn unescaped(text: &str) -> String {
    let mut value = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        value.extend(if letter == '\\' {
            letters.next()
        } else {
            Some(letter)
        });
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_matching_line_is_used() {
        let lines = [
            "# h:5432:d:u:commented",
            "other:5432:d:u:wrong",
            r"h:5432:a\:b:u:with\:colon\\",
            "h:*:*:u:any port",
            "localhost:5432:d:u:socket",
        ];
        let find = |host: &str, port: &str, database: &str, user: &str| {
            let wanted = [host, port, database, user];
            lines.iter().find_map(|line| password_of(line, &wanted))
        };
        assert_eq!(
            find("h", "5432", "a:b", "u").as_deref(),
            Some(r"with:colon\")
        );
        assert_eq!(find("h", "5432", "d", "u").as_deref(), Some("any port"));
        assert_eq!(find("h", "5432", "d", "other"), None);
        assert_eq!(
            find("localhost", "5432", "d", "u").as_deref(),
            Some("socket")
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_can_read_is_ignored() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pgpass");
        let find = || look_up(&file, "/tmp", 5_432, "d", "u");
        assert_eq!(find(), Found::Nothing);
        std::fs::write(&file, "localhost:*:*:*:secret\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(find(), Found::Exposed);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(find(), Found::Password("secret".to_owned()));
    }
}
