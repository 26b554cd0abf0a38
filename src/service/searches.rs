//! Turns of searches: lists by `bbox` or `near`, and pages far from the beginning.
//!
//! A search reads and computes in proportion to what it finds or passes over. A few run at once, each caller has
//! at most half of the places, and who waits does so first in a line of their own: however many lists one caller asks
//! for, another's next one is behind no more than those that run. What is no list never waits here: that has
//! other connections to the database.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::{
    config::Quotas,
    domain::{
        access::Payer,
        error::{Code, Error, Result},
    },
    metrics::{Counter, Metrics},
};

/// Searches that run at once; one caller may have half of them. They take a processor each, or the database's.
const SEARCHES_AT_ONCE: usize = 2;
/// Searches of all callers that wait or run at once, beyond which nobody gets a second one. Full: 503.
const MAX_SEARCHES: usize = 64;
/// The callers who have a search that waits or runs. A caller who has none gets one up to here, however many others
/// have.
const MAX_CALLERS: usize = 1_024;
/// The longest time for which a search waits for its turn.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// Searches that wait or run.
#[derive(Debug)]
pub struct Searches(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The turns to run.
    turns: Arc<Semaphore>,
    /// The searches of one caller that may run.
    turns_of_one: usize,
    /// The searches that wait or run.
    all: AtomicUsize,
    /// The searches of each caller who has any: written when one comes or goes, and bounded by [`MAX_CALLERS`].
    by: Mutex<HashMap<Payer, Theirs>>,
    /// The searches of one caller that may wait or run; `None`: there is no limit, and no search waits too long.
    most: Option<usize>,
    limited: Counter,
}

#[derive(Debug)]
struct Theirs {
    searches: usize,
    turns: Arc<Semaphore>,
}

/// A search that waits or runs.
struct Place {
    of: Arc<Inner>,
    payer: Payer,
}

/// A search that runs, until this is dropped.
pub struct Turn {
    _place: Place,
    _turns: [OwnedSemaphorePermit; 2],
}

impl Searches {
    /// Creates the turns; none is taken.
    pub fn start(quotas: Option<&Quotas>, metrics: &Metrics) -> Self {
        let inner = Arc::new(Inner {
            turns: Arc::new(Semaphore::new(SEARCHES_AT_ONCE)),
            turns_of_one: if quotas.is_some() { SEARCHES_AT_ONCE / 2 } else { SEARCHES_AT_ONCE },
            all: AtomicUsize::new(0),
            by: Mutex::default(),
            most: quotas.map(|quotas| quotas.searches.get() as usize),
            limited: metrics.limited("searches"),
        });
        let look = inner.clone();
        metrics.queue("searches", MAX_SEARCHES, move || look.all.load(Ordering::Relaxed));
        Self(inner)
    }

    /// Waits for a caller's turn.
    ///
    /// # Errors
    /// `rate_limited` where the caller waits for too many already; `storage_unavailable` where too many wait, or it
    /// takes too long.
    pub async fn turn(&self, payer: Payer) -> Result<Turn> {
        let (place, theirs) = self.place(payer)?;
        let wait = async {
            let own = theirs.acquire_owned().await.map_err(Error::internal)?;
            let all = self.0.turns.clone().acquire_owned().await.map_err(Error::internal)?;
            Ok(Turn { _place: place, _turns: [own, all] })
        };
        match self.0.most {
            Some(_) => timeout(MAX_WAIT, wait).await.unwrap_or_else(|_| Err(full())),
            None => wait.await,
        }
    }

    fn place(&self, payer: Payer) -> Result<(Place, Arc<Semaphore>)> {
        let inner = &self.0;
        let mut by = inner.by.lock();
        let there = by.get(&payer).map_or(0, |theirs| theirs.searches);
        if let Some(most) = inner.most {
            if there >= most {
                inner.limited.inc();
                let detail = "too many lists of this caller are being searched for";
                return Err(Error::limited(detail, Duration::from_secs(1)));
            }
            let most = if there == 0 { MAX_CALLERS } else { MAX_SEARCHES };
            if inner.all.load(Ordering::Relaxed) >= most {
                return Err(full());
            }
        }
        let new = || Theirs { searches: 0, turns: Arc::new(Semaphore::new(inner.turns_of_one)) };
        let theirs = by.entry(payer).or_insert_with(new);
        theirs.searches += 1;
        inner.all.fetch_add(1, Ordering::Relaxed);
        Ok((Place { of: inner.clone(), payer }, theirs.turns.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by = self.of.by.lock();
        self.of.all.fetch_sub(1, Ordering::Relaxed);
        if let Some(theirs) = by.get_mut(&self.payer) {
            theirs.searches -= 1;
            if theirs.searches == 0 {
                by.remove(&self.payer);
            }
        }
    }
}

fn full() -> Error {
    let detail = "too many lists are being searched for; try again";
    Error::new(Code::StorageUnavailable, detail).after(MAX_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::UserId;

    #[test]
    fn a_caller_who_has_none_in_line_is_always_taken() {
        let searches = Searches(Arc::new(Inner {
            turns: Arc::new(Semaphore::new(SEARCHES_AT_ONCE)),
            turns_of_one: 1,
            all: AtomicUsize::new(0),
            by: Mutex::default(),
            most: Some(16),
            limited: Counter::default(),
        }));
        let user = |id: usize| Payer::User(UserId::new(id as u64).expect("an id"));
        let place = |id: usize| searches.place(user(id)).map(|(place, _)| place);
        let greedy = Vec::from_iter((1..=5).flat_map(|id| (0..14).map_while(move |_| place(id).ok())));
        assert_eq!(greedy.len(), MAX_SEARCHES, "as many as a few callers get");
        let others = Vec::from_iter((100..).map_while(|id| place(id).ok()));
        assert_eq!(greedy.len() + others.len(), MAX_CALLERS);
        assert!(place(100).is_err_and(|error| error.code == Code::StorageUnavailable));
        drop((greedy, others));
        assert!(place(100).is_ok() && searches.0.by.lock().is_empty());
    }
}
