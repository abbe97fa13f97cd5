//! Closes pages and periods while an ingest runs, and at its end, so that answers come from the
//! aggregates. Batches never wait for it, and answers do not depend on it: what is not closed is
//! read from the records.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::progress::Counters;
use super::session::Session;
use crate::config::Config;
use crate::db::{self, OpenPeriods, WriteError};
use crate::failpoint;

/// The pause between two looks at how much is open.
const PERIOD_CHECK: Duration = Duration::from_secs(2);

/// After this many pauses without a commit, a task looks anyway: for what a killed ingest has left, for
/// a period that has become old, and for chunks to drop.
const IDLE_PAUSES: u32 = 60;

/// The pause between two looks for chunks to drop.
const DROP_EVERY: Duration = Duration::from_mins(1);

/// The tasks that close pages and periods in the background, each with its own connection.
pub(super) struct Closer {
    /// The number of commits. The tasks end when it is dropped.
    commits: watch::Sender<u64>,
    tasks: Vec<JoinHandle<()>>,
    counters: Arc<Counters>,
    /// Duration of the final closing.
    pub spent: Duration,
}

impl Closer {
    /// Starts the tasks. They connect after the first commit, or if there is none for a minute or two.
    pub fn start(config: &Config, counters: &Arc<Counters>) -> Self {
        let (commits, committed) = watch::channel(0);
        let task = |kind: Kind| {
            let background = Background {
                config: config.clone(),
                kind,
                committed: committed.clone(),
                counters: Arc::clone(counters),
            };
            tokio::spawn(background.run())
        };
        Self {
            tasks: vec![task(Kind::Pages), task(Kind::Periods)],
            commits,
            counters: Arc::clone(counters),
            spent: Duration::ZERO,
        }
    }

    /// Notes that a batch was committed.
    pub fn committed(&mut self) {
        self.commits.send_modify(|commits| *commits += 1);
    }

    /// Stops the tasks, and closes what is left: a bulk load, periods that are due, and the last page.
    /// An ingest that stores nothing closes what a killed one has left.
    ///
    /// # Errors
    /// Returns an error if the database is unavailable for too long or rejects a statement. All
    /// steps can be repeated.
    pub async fn finish(&mut self, session: &mut Session<'_>) -> Result<(), WriteError> {
        self.stop_tasks().await;
        let began = Instant::now();
        failpoint::pass("before-refresh");
        let config = session.config();
        let closed = session
            .repeat(async |connection| {
                db::prepare_closing(connection).await?;
                let open = db::open_periods(connection).await?;
                let closed = if open.bulk > 0 || is_due(config, open) {
                    let helpers = db::connect_additional(&config.database, connection, 1).await;
                    for helper in &helpers {
                        db::prepare_closing(helper).await?;
                    }
                    db::close_period(connection, helpers.first()).await?
                } else {
                    db::close_page(connection).await?
                };
                failpoint::pass("after-refresh");
                db::merge_span(connection).await?;
                db::drop_old(connection).await?;
                Ok(closed)
            })
            .await?;
        if closed {
            self.counters.add_refresh();
        }
        self.spent = began.elapsed();
        Ok(())
    }

    /// Stops the tasks once they have finished their current step.
    pub async fn stop_tasks(&mut self) {
        let commits = *self.commits.borrow();
        self.commits = watch::channel(commits).0;
        for task in self.tasks.drain(..) {
            if let Err(error) = task.await {
                log::error!("closing in the background has failed: {error}");
            }
        }
    }
}

/// Whether a period is to be closed.
fn is_due(config: &Config, open: OpenPeriods) -> bool {
    let age = Duration::from_secs(config.ingest.period_minutes * 60);
    open.records >= config.ingest.period_records
        || (open.records > 0 && open.since_closing.is_some_and(|since| since >= age))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Pages,
    Periods,
}

/// A background task.
struct Background {
    config: Config,
    kind: Kind,
    committed: watch::Receiver<u64>,
    counters: Arc<Counters>,
}

impl Background {
    async fn run(mut self) {
        let mut session: Option<Session<'_>> = None;
        let config = self.config.clone();
        let pause = match self.kind {
            Kind::Pages => Duration::from_millis(config.ingest.page_ms),
            Kind::Periods => PERIOD_CHECK,
        };
        let mut dropped = Instant::now();
        loop {
            let committed = timeout(pause * IDLE_PAUSES, self.committed.changed()).await;
            if matches!(committed, Ok(Err(_))) {
                return;
            }
            let mut running = self.committed.clone();
            tokio::select! {
                _ = running.wait_for(|_| false) => return,
                () = tokio::time::sleep(pause) => {}
            }
            let closed = async {
                let open = match &mut session {
                    Some(session) => session,
                    none => none.insert(open(&config).await?),
                };
                self.close(open, &mut dropped).await
            };
            match closed.await {
                Ok(true) => self.counters.add_refresh(),
                Ok(false) => {}
                Err(error) => {
                    log::warn!("the aggregates are not up to date, so answers are slower: {error}");
                    session = None;
                }
            }
        }
    }

    async fn close(
        &self,
        session: &mut Session<'_>,
        dropped: &mut Instant,
    ) -> Result<bool, WriteError> {
        let config = &self.config;
        let connection = session.connection();
        match self.kind {
            Kind::Pages => {
                let closed = db::close_page(connection).await?;
                if dropped.elapsed() >= DROP_EVERY {
                    db::drop_old(connection).await?;
                    *dropped = Instant::now();
                }
                Ok(closed)
            }
            Kind::Periods if is_due(config, db::open_periods(connection).await?) => {
                db::close_period(connection, None).await
            }
            Kind::Periods => db::merge_span(connection).await,
        }
    }
}

async fn open(config: &Config) -> Result<Session<'_>, WriteError> {
    let mut session = Session::open(config).await?;
    db::prepare_closing(session.connection()).await?;
    Ok(session)
}
