//! A cache of series pages, so that a repeated request reads no usage.
//!
//! The cache never decides whether a page is current. A page is stored with the tag of its
//! response; each request queries the freshness of its interval, and uses the page only if that
//! yields the same tag. Responses without a tag are not cached.

use actix_web::http::header::EntityTag;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::db::queries::Totals;
use crate::db::{FreshnessLoader, Pool, StorageError};
use crate::domain::{Freshness, Interval, UsageBucket};

/// Approximate size of an entry without its rows.
const ENTRY_BYTES: usize = 256;

/// The query result that a page of a series is made of.
#[derive(Debug, Clone)]
pub struct CachedPage {
    pub totals: Totals,
    pub rows: Vec<UsageBucket>,
}

/// Pages of series, by the digests of their requests. Each worker has its own.
pub struct SeriesCache {
    pages: Cache<String, (EntityTag, CachedPage), Bytes>,
    freshness: FreshnessLoader,
}

impl SeriesCache {
    /// A cache of about `bytes` at most.
    pub fn new(pool: Pool, bytes: u64) -> Self {
        let entries = usize::try_from(bytes).unwrap_or(usize::MAX) / (4 * ENTRY_BYTES);
        Self {
            pages: Cache::with_weighter(entries, bytes, Bytes),
            freshness: FreshnessLoader::new(pool),
        }
    }

    /// Queries how fresh the interval is now.
    ///
    /// # Errors
    /// Returns an error if the database is unavailable.
    pub async fn freshness(&self, interval: Interval) -> Result<Freshness, StorageError> {
        self.freshness.freshness(interval).await
    }

    /// The page of the request with this digest, and the tag of its response.
    pub fn get(&self, digest: &str) -> Option<(EntityTag, CachedPage)> {
        self.pages.get(digest)
    }

    pub fn insert(&self, digest: String, tag: EntityTag, page: CachedPage) {
        self.pages.insert(digest, (tag, page));
    }
}

#[derive(Clone)]
struct Bytes;

impl Weighter<String, (EntityTag, CachedPage)> for Bytes {
    fn weight(&self, _: &String, (_, page): &(EntityTag, CachedPage)) -> u64 {
        (ENTRY_BYTES + page.rows.capacity() * size_of::<UsageBucket>()) as u64
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
        for number in 0..1_000 {
            series_cache.insert(
                number.to_string(),
                EntityTag::new_weak(number.to_string()),
                page.clone(),
            );
        }
        let cached = (0..1_000)
            .filter(|number| series_cache.get(&number.to_string()).is_some())
            .count();
        assert!((10..=100_000 / (50 * 24)).contains(&cached), "{cached}");
        SeriesCache::new(pool(), 0).insert(
            "a".to_owned(),
            EntityTag::new_weak("a".to_owned()),
            page.clone(),
        );
    }
}
