//! Makes errors and log lines safe to print, whatever they quote: a file, a server, or a command
//! line with a password in the wrong place.

use std::fmt::Write as _;

/// The maximum length of a text, in bytes.
const MAX_BYTES: usize = 8_192;

/// What replaces a secret.
const MASK: &str = "…";

/// The text on one line, without control characters, passwords and tokens, and with at most about
/// 8 KiB.
#[must_use]
pub fn printable(text: &str) -> String {
    let masked = without_secrets(text);
    let mut line = String::with_capacity(masked.len());
    for (index, letter) in masked.char_indices() {
        if line.len() >= MAX_BYTES {
            let _ = write!(line, "… ({} more bytes)", masked.len() - index);
            break;
        }
        if is_control(letter) {
            line.extend(letter.escape_default());
        } else {
            line.push(letter);
        }
    }
    line
}

/// Whether a terminal could interpret the character instead of showing it.
fn is_control(letter: char) -> bool {
    // Also separators of lines and paragraphs, and marks that change the direction of text.
    letter.is_control()
        || matches!(letter, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text without the passwords in URLs (`scheme://user:password@host`) and in `password=…`, and
/// without API tokens.
#[must_use]
pub(crate) fn without_secrets(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, secret)) = first_secret(rest) {
        masked.push_str(&rest[..before]);
        masked.push_str(MASK);
        rest = &rest[before + secret..];
    }
    masked + rest
}

/// Where the first secret begins, and its length.
fn first_secret(text: &str) -> Option<(usize, usize)> {
    let secrets = [
        first_in_url(text),
        first_in_authority(text),
        first_assigned(text),
        first_token(text),
    ];
    secrets.into_iter().flatten().min()
}

/// The password of the first URL that has one.
fn first_in_url(text: &str) -> Option<(usize, usize)> {
    for (mark, _) in text.match_indices("://") {
        let start = mark + "://".len();
        let url = &text[start..];
        let url = &url[..url.find(is_end).unwrap_or(url.len())];
        // A password may contain an @ that should have been encoded.
        let Some(colon) = url.find(':') else { continue };
        let end = url.rfind('@').unwrap_or(0);
        if end > colon + 1 && &url[colon + 1..end] != MASK && &url[colon + 1..end] != "password" {
            return Some((start + colon + 1, end - colon - 1));
        }
    }
    None
}

/// The password of the first `user:password@host` without a scheme.
fn first_in_authority(text: &str) -> Option<(usize, usize)> {
    for (at, _) in text.match_indices('@') {
        let begin = |letter: char| is_end(letter) || letter == ',' || letter == '/';
        let start = text[..at].rfind(begin).map_or(0, |before| {
            before + text[before..].chars().next().map_or(1, char::len_utf8)
        });
        // The password of a URL ends at its last @: see first_in_url.
        if text[..start].ends_with("://") {
            continue;
        }
        let word = &text[start..at];
        let Some(colon) = word.find(':') else {
            continue;
        };
        let password = &word[colon + 1..];
        if colon > 0 && !password.is_empty() && password != MASK && password != "password" {
            return Some((start + colon + 1, password.len()));
        }
    }
    None
}

/// The value of the first `password=…`, as in connection strings and settings.
fn first_assigned(text: &str) -> Option<(usize, usize)> {
    const NAME: &[u8] = b"password";
    let bytes = text.as_bytes();
    for (index, name) in bytes.windows(NAME.len()).enumerate() {
        if !name.eq_ignore_ascii_case(NAME) {
            continue;
        }
        let after = &text[index + NAME.len()..];
        let Some(value) = after.trim_start_matches(' ').strip_prefix('=') else {
            continue;
        };
        let value = value.trim_start_matches(' ');
        let start = text.len() - value.len();
        let quote = value.chars().next().filter(|quote| "'\"".contains(*quote));
        let length = match quote {
            Some(quote) => {
                let quoted = &value[1..];
                quoted.find(quote).map_or(value.len(), |end| end + 2)
            }
            None => value
                .find(|letter| is_end(letter) || letter == '&')
                .unwrap_or(value.len()),
        };
        if length > 0 && &value[..length] != MASK {
            return Some((start, length));
        }
    }
    None
}

/// The random part of the first API token.
fn first_token(text: &str) -> Option<(usize, usize)> {
    const PREFIX: &str = "simusage_";
    /// Shorter words can be the names of tables, roles and metrics.
    const SHORTEST: usize = 32;
    text.match_indices(PREFIX).find_map(|(index, _)| {
        let start = index + PREFIX.len();
        let digits = text[start..].bytes().take_while(u8::is_ascii_hexdigit);
        let length = digits.count();
        (length >= SHORTEST).then_some((start, length))
    })
}

/// Whether a URL or an unquoted value ends before the character.
fn is_end(letter: char) -> bool {
    letter.is_whitespace() || "'\"`<>".contains(letter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn secrets_are_masked() {
        for (text, expected) in [
            ("postgresql://me:hunter2@db/x", "postgresql://me:…@db/x"),
            ("'postgres://me:hun@ter/2@db'", "'postgres://me:…@db'"),
            (
                "kafka://a:b@c and sasl://d:e@f",
                "kafka://a:…@c and sasl://d:…@f",
            ),
            (
                "--kafka u:hunter2@127.0.0.1:1,v:hunter3@b: failed",
                "--kafka u:…@127.0.0.1:1,v:…@b: failed",
            ),
            ("12:30 me@example.org", "12:30 me@example.org"),
            (
                "host=db password=hunter2 user=me",
                "host=db password=… user=me",
            ),
            ("SASL_PASSWORD = 'hunter 2'", "SASL_PASSWORD = …"),
            ("?password=hunter2&user=me", "?password=…&user=me"),
            (
                "there is no token named simusage_0123456789abcdef0123456789abcdef!",
                "there is no token named simusage_…!",
            ),
        ] {
            assert_eq!(without_secrets(text), expected);
        }
    }

    #[test]
    fn everything_else_is_kept() {
        for text in [
            "postgresql://user:password@host:port/database",
            "listening on http://127.0.0.1:8000",
            "postgresql://me@db:5432/x",
            "http://localhost:8000/",
            "the server requires a password: set it",
            "there is no setting kafka.password; [kafka] has sasl_password, ssl_key_password",
            "grant simusage_reader_usage to me",
        ] {
            assert_eq!(printable(text), text);
        }
    }

    #[test]
    fn control_characters_are_escaped() {
        let text = "a\nb\r\u{1b}[31m\0\u{7f}\u{85}\u{202e}\u{2028}é";
        let expected = r"a\nb\r\u{1b}[31m\u{0}\u{7f}\u{85}\u{202e}\u{2028}é";
        assert_eq!(printable(text), expected);
    }

    #[test]
    fn the_length_is_bounded() {
        assert_eq!(printable(&"é".repeat(4_096)).len(), MAX_BYTES);
        let long = printable(&"é".repeat(100_000));
        assert!(
            long.ends_with("… (191808 more bytes)"),
            "{}",
            &long[long.len() - 40..]
        );
    }

    proptest! {
        #[test]
        fn every_text_becomes_one_line(text in any::<String>()) {
            let line = printable(&text);
            prop_assert!(!line.contains(is_control), "{line:?}");
        }

        #[test]
        fn no_password_in_a_url_is_printed(password in "[A-Za-z0-9:@/?#%&=+;,.~!$*()^-]{6,20}") {
            prop_assume!(password != "password");
            let line = printable(&format!("error: 'postgresql://me:{password}@db:5432/x' is wrong"));
            prop_assert_eq!(line, "error: 'postgresql://me:…@db:5432/x' is wrong");
        }
    }
}
