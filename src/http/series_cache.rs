//! Series that are kept in memory, so that one that is asked for again is not read again.
//!
//! Nothing here decides how long a series holds. It is kept under the tag of its answer, and each request asks the
//! database for the freshness of its interval before it looks: the tag says whether the series is still the one that the
//! database would answer, as it does where the client has kept it. What was not settled had no tag, and is not kept.

use std::sync::Arc;

use actix_web::http::header::EntityTag;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::db::queries::Totals;
use crate::db::{FreshnessLoader, Pool, StorageError};
use crate::domain::{Freshness, Interval, UsageBucket};

/// About what an entry takes beside its rows: two short texts, the totals, its place in the map.
const ENTRY_BYTES: usize = 256;

/// What was read for a page of a series.
#[derive(Debug)]
pub(super) struct Page {
    pub totals: Totals,
    pub rows: Vec<UsageBucket>,
}

/// Pages of series, by the digests of their questions, and who knows whether they still hold. They belong to one worker.
pub(super) struct SeriesCache {
    /// The least useful make room.
    pages: Cache<String, (EntityTag, Arc<Page>), Bytes>,
    desk: FreshnessLoader,
}

impl SeriesCache {
    /// Keeps up to about so many bytes.
    pub fn new(pool: Pool, bytes: u64) -> Self {
        let entries = usize::try_from(bytes).unwrap_or(usize::MAX) / (4 * ENTRY_BYTES);
        Self {
            pages: Cache::with_weighter(entries, bytes, Bytes),
            desk: FreshnessLoader::new(pool),
        }
    }

    /// How fresh an answer over the interval would be.
    ///
    /// # Errors
    /// The database is away.
    pub async fn freshness(&self, interval: Interval) -> Result<Freshness, StorageError> {
        self.desk.freshness(interval).await
    }

    /// What was read for that question when its answer had the tag that is returned.
    pub fn get(&self, digest: &str) -> Option<(EntityTag, Arc<Page>)> {
        self.pages.get(digest)
    }

    /// Keeps what was read, in place of what was read for that question before.
    pub fn keep(&self, digest: String, tag: EntityTag, page: Arc<Page>) {
        self.pages.insert(digest, (tag, page));
    }
}

/// The memory that an entry takes.
#[derive(Clone)]
struct Bytes;

impl Weighter<String, (EntityTag, Arc<Page>)> for Bytes {
    fn weight(&self, _: &String, (_, page): &(EntityTag, Arc<Page>)) -> u64 {
        (ENTRY_BYTES + page.rows.capacity() * size_of::<UsageBucket>()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Overrides};

    #[test]
    fn no_more_is_kept_than_was_allowed() {
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
        let page = Arc::new(Page {
            totals: Totals {
                rows: 50,
                bytes: 50,
            },
            rows,
        });
        for number in 0..1_000 {
            series_cache.keep(
                number.to_string(),
                EntityTag::new_weak(number.to_string()),
                Arc::clone(&page),
            );
        }
        let kept = (0..1_000)
            .filter(|number| series_cache.get(&number.to_string()).is_some())
            .count();
        assert!((10..=100_000 / (50 * 24)).contains(&kept), "{kept}");
        SeriesCache::new(pool(), 0).keep(
            "a".to_owned(),
            EntityTag::new_weak("a".to_owned()),
            Arc::clone(&page),
        );
    }
}
