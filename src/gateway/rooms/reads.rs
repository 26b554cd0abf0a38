//! Who may read from the database for a room at this moment.
//!
//! All rooms together run a bounded number of reads at once, and of these one caller has a share: however many
//! sockets ask, others' joins find a free place. Waiting for one's share comes before waiting for a room's turn, so
//! that nobody waits for a room with the turn of it in hand.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::domain::{
    access::Whose,
    error::{Error, Result},
};

/// Reads of all rooms that may run at once; requests have the database's other connections.
pub const READS: usize = 8;
/// Reads of one caller that may run at once.
const READS_OF_A_CALLER: usize = READS / 2;
/// Callers among whom those who read nothing any more are not looked for.
const FEW_CALLERS: usize = 64;

/// The reads that are running, and who waits for one. Bounded by the number of sockets: each has one event at work.
pub struct Reads {
    all: Semaphore,
    /// Written when a caller is about to read; held for one look-up.
    by: Mutex<Shares>,
}

#[derive(Default)]
struct Shares {
    by: HashMap<Whose, Weak<Semaphore>>,
    next_sweep: usize,
}

impl Reads {
    /// None.
    pub fn new() -> Self {
        Self { all: Semaphore::new(READS), by: Mutex::default() }
    }

    /// How many run.
    pub fn running(&self) -> usize {
        READS - self.all.available_permits()
    }

    /// Waits until another read may run.
    ///
    /// # Errors
    /// `internal`.
    pub async fn permit(&self) -> Result<SemaphorePermit<'_>> {
        self.all.acquire().await.map_err(Error::internal)
    }

    /// Waits until another read of a caller may be asked for.
    ///
    /// # Errors
    /// `internal`.
    pub async fn share(&self, whose: Whose) -> Result<OwnedSemaphorePermit> {
        let share = self.by.lock().of(whose);
        share.acquire_owned().await.map_err(Error::internal)
    }
}

impl Shares {
    fn of(&mut self, whose: Whose) -> Arc<Semaphore> {
        if let Some(share) = self.by.get(&whose).and_then(Weak::upgrade) {
            return share;
        }
        if self.by.len() >= self.next_sweep {
            self.by.retain(|_, share| share.strong_count() > 0);
            self.next_sweep = (2 * self.by.len()).max(FEW_CALLERS);
        }
        let share = Arc::new(Semaphore::new(READS_OF_A_CALLER));
        self.by.insert(whose, Arc::downgrade(&share));
        share
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::UserId;

    #[tokio::test]
    async fn one_caller_leaves_others_a_place() {
        let reads = Reads::new();
        let [eve, ada] = [1, 2].map(|id| Whose::User(UserId::new(id).unwrap()));
        let mut held = Vec::new();
        for _ in 0..READS_OF_A_CALLER {
            held.push((reads.share(eve).await.unwrap(), reads.permit().await.unwrap()));
        }
        assert_eq!(reads.by.lock().of(eve).available_permits(), 0);
        let _ada = (reads.share(ada).await.unwrap(), reads.permit().await.unwrap());
        assert_eq!(reads.running(), READS_OF_A_CALLER + 1);
        drop(held);
        for id in 0..10 * FEW_CALLERS as u64 {
            drop(reads.share(Whose::User(UserId::new(id).unwrap())).await.unwrap());
        }
        assert!(reads.by.lock().by.len() <= FEW_CALLERS, "callers who read nothing are forgotten");
    }
}
