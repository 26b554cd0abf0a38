//! How much of one kind of work each caller may have under way at once; the rest of theirs waits.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::{
    access::Whose,
    error::{Error, Result},
};

/// Callers among whom those who have nothing under way any more are not looked for.
const FEW_CALLERS: usize = 64;

/// The turns of many callers.
#[derive(Debug)]
pub struct CallerTurns {
    of_a_caller: usize,
    /// Written when a caller is about to wait; held for one look-up.
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    by: HashMap<Whose, Weak<Semaphore>>,
    next_sweep: usize,
}

impl CallerTurns {
    /// So many turns of each caller at once.
    pub fn new(of_a_caller: usize) -> Self {
        Self { of_a_caller, kept: Mutex::default() }
    }

    /// Waits for a turn of a caller, which lasts until what is returned is dropped.
    ///
    /// # Errors
    /// `internal`.
    pub async fn wait(&self, whose: Whose) -> Result<OwnedSemaphorePermit> {
        self.of(whose).acquire_owned().await.map_err(Error::internal)
    }

    /// The turns of one caller, kept as long as somebody holds them.
    pub fn of(&self, whose: Whose) -> Arc<Semaphore> {
        self.kept.lock().of(whose, self.of_a_caller)
    }

    /// Has nobody a turn, and does nobody wait for one?
    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        self.kept.lock().by.values().all(|turns| turns.strong_count() == 0)
    }
}

impl Kept {
    fn of(&mut self, whose: Whose, of_a_caller: usize) -> Arc<Semaphore> {
        if let Some(turns) = self.by.get(&whose).and_then(Weak::upgrade) {
            return turns;
        }
        if self.by.len() >= self.next_sweep {
            self.by.retain(|_, turns| turns.strong_count() > 0);
            self.next_sweep = (2 * self.by.len()).max(FEW_CALLERS);
        }
        let turns = Arc::new(Semaphore::new(of_a_caller));
        self.by.insert(whose, Arc::downgrade(&turns));
        turns
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
        let [eve, ada] = [1, 2].map(|id| Whose::User(UserId::new(id).unwrap()));
        let held = [turns.wait(eve).await.unwrap(), turns.wait(eve).await.unwrap()];
        assert!(turns.wait(eve).now_or_never().is_none());
        drop(turns.wait(ada).await.unwrap());
        drop(held);
        assert!(turns.wait(eve).now_or_never().is_some());
        for id in 0..10 * FEW_CALLERS as u64 {
            drop(turns.wait(Whose::User(UserId::new(id).unwrap())).await.unwrap());
        }
        assert!(
            turns.kept.lock().by.len() <= FEW_CALLERS,
            "callers who have nothing under way are forgotten"
        );
    }
}
