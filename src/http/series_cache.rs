//! A cache of series pages, and of the tags of lists, so that a repeated request reads no usage.
//!
//! The cache never decides whether an entry is current. Each is stored with the version tag of its
//! response; each request queries the freshness of its interval, and uses the entry only if that yields
//! the same version tag.

use actix_web::http::header::EntityTag;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::response::version_tag;
use crate::db::queries::Totals;
use crate::db::{FreshnessLoader, Pool, StorageError};
use crate::domain::{Freshness, Interval, UsageBucket};

/// Approximate size of an entry without its rows.
const ENTRY_BYTES: usize = 256;

/// The tags of a response.
#[derive(Debug, Clone)]
pub struct Tags {
    /// See [`version_tag`].
    pub version: EntityTag,
    /// The one that the client gets.
    pub tag: EntityTag,
}

/// The query result that a page of a series is made of.
#[derive(Debug, Clone)]
pub struct CachedPage {
    pub totals: Totals,
    pub rows: Vec<UsageBucket>,
}

/// What is known about the response to a request before any usage is read.
#[derive(Debug)]
pub struct Known {
    pub tag: EntityTag,
    pub freshness: Freshness,
    /// The page, if it is cached.
    pub page: Option<CachedPage>,
}

type Entry = (Tags, Option<CachedPage>);

/// Entries by the digests of their requests. Each worker has its own.
pub struct SeriesCache {
    entries: Cache<String, Entry, Bytes>,
    freshness: FreshnessLoader,
}

impl SeriesCache {
    /// A cache of about `bytes` at most.
    pub fn new(pool: Pool, bytes: u64) -> Self {
        let entries = usize::try_from(bytes).unwrap_or(usize::MAX) / (4 * ENTRY_BYTES);
        Self {
            entries: Cache::with_weighter(entries, bytes, Bytes),
            freshness: FreshnessLoader::new(pool),
        }
    }

    /// Whether there is an entry for the request with this digest, current or not.
    pub fn has(&self, digest: &str) -> bool {
        self.entries.peek(digest).is_some()
    }

    /// Queries how fresh the interval is now, and returns what is known about the response to the
    /// request with this digest. Without a current entry, something is known only if the response has
    /// its version tag.
    ///
    /// # Errors
    /// Returns an error if the database is unavailable.
    pub async fn known(
        &self,
        digest: &str,
        interval: Interval,
        has_version_tag: bool,
    ) -> Result<Option<Known>, StorageError> {
        let entry = self.entries.get(digest);
        if entry.is_none() && !has_version_tag {
            return Ok(None);
        }
        let freshness = self.freshness.freshness(interval).await?;
        let version = version_tag(&freshness, interval, digest);
        let entry = entry.filter(|(tags, _)| tags.version == version);
        let (tag, page) = match entry {
            Some((tags, page)) => (tags.tag, page),
            None if has_version_tag => (version, None),
            None => return Ok(None),
        };
        Ok(Some(Known {
            tag,
            freshness,
            page,
        }))
    }

    pub fn insert(&self, digest: String, tags: Tags, page: Option<CachedPage>) {
        self.entries.insert(digest, (tags, page));
    }
}

#[derive(Clone)]
struct Bytes;

impl Weighter<String, Entry> for Bytes {
    fn weight(&self, _: &String, (_, page): &Entry) -> u64 {
        let rows = page.as_ref().map_or(0, |page| page.rows.capacity());
        (ENTRY_BYTES + rows * size_of::<UsageBucket>()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Overrides};

    #[test]
    fn the_cache_keeps_to_its_limit() {
        let pool = || Pool::new(&Config::load(None, [], &Overrides::default()).unwrap(), 1);
        let series_cache = SeriesCache::new(pool(), 100_000);
        let rows = vec![
            UsageBucket {
                index: 0,
                bytes: 1,
                records: 1
            };
            50
        ];
        let page = CachedPage {
            totals: Totals {
                rows: 50,
                bytes: Some(50),
            },
            rows,
        };
        let tags = Tags {
            version: EntityTag::new_weak("a".to_owned()),
            tag: EntityTag::new_weak("a".to_owned()),
        };
        for number in 0..1_000 {
            series_cache.insert(number.to_string(), tags.clone(), Some(page.clone()));
        }
        let cached = (0..1_000)
            .filter(|number| series_cache.has(&number.to_string()))
            .count();
        assert!((10..=100_000 / (50 * 24)).contains(&cached), "{cached}");
        SeriesCache::new(pool(), 0).insert("a".to_owned(), tags, Some(page));
    }
}
