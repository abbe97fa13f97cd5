//! `[feeds]`

use serde::Deserialize;

use super::error::InvalidValue;
use super::web::parts;

/// How feeds are told apart. `migrate` stores it in the database.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Feeds {
    /// The expected feeds.
    pub names: FeedNames,
    /// How long a feed may be silent, compared with the one that was stored last, in hours. 0: any time.
    pub silent_after_hours: u32,
}

/// Patterns of names, written with commas; each may have its own silence in hours: `gateway-a-*,
/// site-1/*=72`. See `sql/functions/feed_of.sql`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct FeedNames(Vec<(String, Option<u32>)>);

impl FeedNames {
    /// The patterns with their silence, if they have their own.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<u32>)> {
        self.0.iter().map(|(name, hours)| (name.as_str(), *hours))
    }
}

impl TryFrom<String> for FeedNames {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut names: Vec<(String, Option<u32>)> = vec![];
        for part in parts(&text) {
            let (name, hours) = match part.rsplit_once('=') {
                Some((name, hours)) => {
                    let hours = hours.trim().parse();
                    let hours = hours.map_err(|_| {
                        format!("'{part}' does not end in a number of hours (e.g. gateway-*=72)")
                    })?;
                    (name.trim(), Some(hours))
                }
                None => (part, None),
            };
            if name.is_empty() || names.iter().any(|(known, _)| known == name) {
                return Err(format!("'{part}' is empty or given twice"));
            }
            if name.ends_with('/') {
                return Err(format!("'{name}' is a folder; write {name}* for its files"));
            }
            names.push((name.to_owned(), hours));
        }
        Ok(Self(names))
    }
}

impl Feeds {
    pub(super) fn validate(&self) -> Result<(), InvalidValue> {
        let all = self.names.iter().filter_map(|(_, hours)| hours);
        if let Some(hours) = all
            .chain([self.silent_after_hours])
            .find(|hours| *hours > 1_000_000)
        {
            let problem = format!("{hours} hours are too many; use 0 for any time");
            return Err(InvalidValue::new("silent_after_hours", problem));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_have_their_own_silence() {
        let parse = |text: &str| FeedNames::try_from(text.to_owned());
        let names = parse("gateway-a-*, daily-* = 72,topic").unwrap();
        let expected = [
            ("gateway-a-*", None),
            ("daily-*", Some(72)),
            ("topic", None),
        ];
        assert!(names.iter().eq(expected));
        assert_eq!(parse("").unwrap(), FeedNames::default());
        for wrong in ["a=b", "a,a", "=3", "a=-1", "a/", "/data/=3"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
