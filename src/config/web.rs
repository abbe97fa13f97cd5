//! Values about browsers: whether a token is required, host names, and origins.

use serde::Deserialize;

/// Whether requests to the API need a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "FlagOrText")]
pub enum RequireToken {
    /// Always, even if no token exists.
    True,
    /// Never. A request with a token is limited to what that may see.
    False,
    /// From the first token on.
    Auto,
}

/// A boolean, or its text in an environment variable.
#[derive(Deserialize)]
#[serde(untagged)]
enum FlagOrText {
    Flag(bool),
    Text(String),
}

impl TryFrom<FlagOrText> for RequireToken {
    type Error = String;

    fn try_from(value: FlagOrText) -> Result<Self, String> {
        match value {
            FlagOrText::Flag(true) => Ok(Self::True),
            FlagOrText::Flag(false) => Ok(Self::False),
            FlagOrText::Text(text) => match &*text {
                "true" => Ok(Self::True),
                "false" => Ok(Self::False),
                "auto" => Ok(Self::Auto),
                _ => Err(format!("cannot be '{text}'; use true, false or auto")),
            },
        }
    }
}

/// Host names without ports, written with commas: `usage.example.net, simusage`; `*` stands for all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct HostNames(Vec<String>);

impl HostNames {
    /// Whether the list has no names.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the list has the name, which must be in lower case.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|listed| listed == name || listed == "*")
    }
}

impl TryFrom<String> for HostNames {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let is_name = |name: &str| {
            name == "*"
                || name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        };
        match parts(&text).find(|name| !is_name(name)) {
            Some(other) => Err(format!(
                "'{other}' is not a host name (e.g. usage.example.net, without scheme and port)"
            )),
            None => Ok(Self(parts(&text).map(str::to_ascii_lowercase).collect())),
        }
    }
}

/// Origins, written with commas: `https://portal.example.net, http://localhost:3000`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct CorsOrigins(Vec<String>);

impl CorsOrigins {
    /// Each origin, as browsers send it.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<String> for CorsOrigins {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let is_origin = |origin: &str| {
            let host = ["http://", "https://"]
                .iter()
                .find_map(|scheme| origin.strip_prefix(scheme));
            // Browsers send the host in lower case, and no path.
            host.is_some_and(|host| {
                let is_part = |byte: u8| {
                    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._:[]".contains(&byte)
                };
                !host.is_empty() && host.bytes().all(is_part)
            })
        };
        match parts(&text).find(|origin| !is_origin(origin)) {
            Some(other) => Err(format!(
                "'{other}' is not an origin (e.g. https://portal.example.net, in lower case and \
                 without a path)"
            )),
            None => Ok(Self(parts(&text).map(str::to_owned).collect())),
        }
    }
}

/// The parts of a list with commas.
pub(super) fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_compared_without_its_case_and_a_star_stands_for_all() {
        let names = |text: &str| HostNames::try_from(text.to_owned());
        let list = names("Usage.example.net, simusage").unwrap();
        assert!(list.contains("usage.example.net") && list.contains("simusage"));
        assert!(!list.contains("example.net") && !list.is_empty());
        assert!(names("*").unwrap().contains("anything"));
        assert!(names(" , ").unwrap().is_empty());
        for text in ["http://simusage", "simusage:8000", "a/b", "a b"] {
            let error = names(text).unwrap_err();
            assert!(error.contains("is not a host name"), "{error}");
        }
    }

    #[test]
    fn an_origin_has_a_scheme_and_a_host() {
        let origins = |text: &str| CorsOrigins::try_from(text.to_owned());
        let list = origins("https://portal.example.net,http://localhost:3000").unwrap();
        let list: Vec<_> = list.iter().collect();
        assert_eq!(
            list,
            ["https://portal.example.net", "http://localhost:3000"]
        );
        for text in [
            "*",
            "null",
            "portal.example.net",
            "https://portal.example.net/",
            "https://Portal.example.net",
            "https://",
            "https://a/b",
        ] {
            let error = origins(text).unwrap_err();
            assert!(error.contains("is not an origin"), "{error}");
        }
    }
}
