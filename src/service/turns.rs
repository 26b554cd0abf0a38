//! Turns of callers: each caller may have so much of one kind of work under way at once, and the rest waits.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::{
    access::Payer,
    error::{Error, Result},
};

/// Callers among whom those who have nothing under way any more are not looked for.
const FEW_CALLERS: usize = 64;

/// The turns of many callers.
#[derive(Debug)]
pub struct CallerTurns {
    of_a_caller: usize,
    turns: PerCaller<Semaphore>,
}

impl CallerTurns {
    /// Gives each caller so many turns at once.
    pub fn new(of_a_caller: usize) -> Self {
        Self { of_a_caller, turns: PerCaller::default() }
    }

    /// Waits for a turn of a caller, which lasts until what is returned is dropped.
    ///
    /// # Errors
    /// `internal`.
    pub async fn wait(&self, payer: Payer) -> Result<OwnedSemaphorePermit> {
        let turns = self.turns.of(payer, || Semaphore::new(self.of_a_caller));
        turns.acquire_owned().await.map_err(Error::internal)
    }

    /// Whether nobody has a turn or waits for one.
    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        self.turns.0.lock().by.values().all(|turns| turns.strong_count() == 0)
    }
}

/// A value for each caller, kept as long as somebody holds it.
#[derive(Debug)]
pub struct PerCaller<T>(
    /// The values, written when one is asked for and locked for one look-up.
    Mutex<Kept<T>>,
);

#[derive(Debug)]
struct Kept<T> {
    by: HashMap<Payer, Weak<T>>,
    next_sweep: usize,
}

impl<T> Default for PerCaller<T> {
    fn default() -> Self {
        Self(Mutex::new(Kept { by: HashMap::new(), next_sweep: 0 }))
    }
}

impl<T> PerCaller<T> {
    /// The value of a caller, made if there is none.
    pub fn of(&self, payer: Payer, make: impl FnOnce() -> T) -> Arc<T> {
        let Kept { by, next_sweep } = &mut *self.0.lock();
        if let Some(kept) = by.get(&payer).and_then(Weak::upgrade) {
            return kept;
        }
        if by.len() >= *next_sweep {
            by.retain(|_, kept| kept.strong_count() > 0);
            *next_sweep = (2 * by.len()).max(FEW_CALLERS);
        }
        let made = Arc::new(make());
        by.insert(payer, Arc::downgrade(&made));
        made
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::domain::id::UserId;

    #[tokio::test]
    async fn each_caller_has_so_many_turns_at_once() {
        let turns = CallerTurns::new(2);
        let [eve, ada] = [1, 2].map(|id| Payer::User(UserId::new(id).unwrap()));
        let held = [turns.wait(eve).await.unwrap(), turns.wait(eve).await.unwrap()];
        assert!(turns.wait(eve).now_or_never().is_none());
        drop(turns.wait(ada).await.unwrap());
        drop(held);
        assert!(turns.wait(eve).now_or_never().is_some());
        for id in 0..10 * FEW_CALLERS as u64 {
            drop(turns.wait(Payer::User(UserId::new(id).unwrap())).await.unwrap());
        }
        assert!(
            turns.turns.0.lock().by.len() <= FEW_CALLERS,
            "callers who have nothing under way are forgotten"
        );
    }
}
