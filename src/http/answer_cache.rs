//! A cache of pages of series and lists, so that a repeated request reads no usage.
//!
//! The cache never decides whether an entry is current. Each is stored with the version tag of its
//! response; each request queries the freshness of its interval, and uses the entry only if that yields
//! the same version tag.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix_web::http::header::EntityTag;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use rustc_hash::FxHashMap;
use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout;

use super::response::version_tag;
use crate::db::queries::Totals;
use crate::db::{FreshnessLoader, Pool, StorageError};
use crate::domain::{Freshness, Interval, UsageBucket, UsageTotal};

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

/// The query result that a page is made of.
#[derive(Debug, Clone)]
pub struct CachedPage {
    pub totals: Totals,
    pub rows: CachedRows,
}

#[derive(Debug, Clone)]
pub enum CachedRows {
    Series(Vec<UsageBucket>),
    List(Vec<UsageTotal>),
}

/// What is known about the response to a request before any usage is read.
#[derive(Debug)]
pub struct Known {
    pub tag: EntityTag,
    pub freshness: Freshness,
    /// The page, if it is cached.
    pub page: Option<CachedPage>,
}

type Entry = (Tags, CachedPage);

/// The entries of all workers, by the digests of their requests.
#[derive(Debug, Clone)]
pub struct Answers {
    entries: Arc<Cache<String, Entry, Bytes>>,
    turns: Arc<Turns>,
}

impl Answers {
    /// Keeps about `bytes` at most.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let entries = usize::try_from(bytes).unwrap_or(usize::MAX) / (4 * ENTRY_BYTES);
        Self {
            entries: Arc::new(Cache::with_weighter(entries, bytes, Bytes)),
            turns: Arc::default(),
        }
    }
}

/// The cache as a worker uses it.
pub struct AnswerCache {
    answers: Answers,
    freshness: FreshnessLoader,
}

impl AnswerCache {
    pub fn new(pool: Pool, answers: Answers) -> Self {
        Self {
            answers,
            freshness: FreshnessLoader::new(pool),
        }
    }

    /// Whether there is an entry for the request with this digest, current or not.
    pub fn has(&self, digest: &str) -> bool {
        self.answers.entries.peek(digest).is_some()
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
        let entry = self.answers.entries.get(digest);
        if entry.is_none() && !has_version_tag {
            return Ok(None);
        }
        let freshness = self.freshness.freshness(interval).await?;
        let version = version_tag(&freshness, interval, digest);
        let entry = entry.filter(|(tags, _)| tags.version == version);
        let (tag, page) = match entry {
            Some((tags, page)) => (tags.tag, Some(page)),
            None if has_version_tag => (version, None),
            None => return Ok(None),
        };
        Ok(Some(Known {
            tag,
            freshness,
            page,
        }))
    }

    pub fn insert(&self, digest: String, tags: Tags, page: CachedPage) {
        self.answers.entries.insert(digest, (tags, page));
    }

    /// Waits while another request with this digest is being answered, up to `longest`, so that many
    /// requests for one expensive page read its usage once. Returns whether it has waited, too.
    pub async fn turn(&self, digest: &str, longest: Duration) -> (Turn, bool) {
        let turns = &self.answers.turns;
        let mutex = Arc::clone(turns.lock().entry(digest.to_owned()).or_default());
        let mut turn = Turn {
            turns: Arc::clone(turns),
            digest: digest.to_owned(),
            guard: None,
        };
        if let Ok(guard) = Arc::clone(&mutex).try_lock_owned() {
            turn.guard = Some(guard);
            return (turn, false);
        }
        turn.guard = timeout(longest, mutex.lock_owned()).await.ok();
        (turn, true)
    }
}

/// For each digest that is being answered, a lock that the request in progress holds.
#[derive(Debug, Default)]
struct Turns(Mutex<FxHashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Turns {
    fn lock(&self) -> std::sync::MutexGuard<'_, FxHashMap<String, Arc<tokio::sync::Mutex<()>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends when dropped.
#[derive(Debug)]
pub struct Turn {
    turns: Arc<Turns>,
    digest: String,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut turns = self.turns.lock();
        self.guard = None;
        if turns
            .get(&self.digest)
            .is_some_and(|mutex| Arc::strong_count(mutex) == 1)
        {
            turns.remove(&self.digest);
        }
    }
}

#[derive(Debug, Clone)]
struct Bytes;

impl Weighter<String, Entry> for Bytes {
    fn weight(&self, _: &String, (_, page): &Entry) -> u64 {
        let rows = match &page.rows {
            CachedRows::Series(rows) => rows.capacity() * size_of::<UsageBucket>(),
            CachedRows::List(rows) => {
                let ids: usize = rows.iter().map(|row| row.id.capacity()).sum();
                rows.capacity() * size_of::<UsageTotal>() + ids
            }
        };
        (ENTRY_BYTES + rows) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Overrides};

    #[test]
    fn the_cache_keeps_to_its_limit() {
        let pool = || Pool::new(&Config::load(None, [], &Overrides::default()).unwrap(), 1);
        let cache = |bytes| AnswerCache::new(pool(), Answers::new(bytes));
        let answer_cache = cache(100_000);
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
            rows: CachedRows::Series(rows),
        };
        let tags = Tags {
            version: EntityTag::new_weak("a".to_owned()),
            tag: EntityTag::new_weak("a".to_owned()),
        };
        for number in 0..1_000 {
            answer_cache.insert(number.to_string(), tags.clone(), page.clone());
        }
        let cached = (0..1_000)
            .filter(|number| answer_cache.has(&number.to_string()))
            .count();
        assert!((10..=100_000 / (50 * 24)).contains(&cached), "{cached}");
        cache(0).insert("a".to_owned(), tags, page);
    }

    #[actix_web::test]
    async fn requests_for_one_page_wait_for_each_other() {
        let pool = Pool::new(&Config::load(None, [], &Overrides::default()).unwrap(), 1);
        let cache = AnswerCache::new(pool, Answers::new(0));
        let (minute, instant) = (Duration::from_mins(1), Duration::from_millis(1));
        let (first, has_waited) = cache.turn("a", minute).await;
        assert!(!has_waited);
        assert!(!cache.turn("b", minute).await.1);
        // The second gives up; the third waits for the first.
        assert!(cache.turn("a", instant).await.1);
        let third = cache.turn("a", minute);
        let (third, ()) = tokio::join!(third, async move { drop(first) });
        assert!(third.1);
        drop(third);
        assert!(cache.answers.turns.lock().is_empty());
    }
}
