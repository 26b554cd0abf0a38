//! The order in which rooms may read from the database.
//!
//! Of the reads that run at once one caller has a share: however many of its sockets ask, others' joins find a place. A
//! reader waits for its share before a room's turn, so that nobody holds a turn while waiting for the share.

use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::{
    domain::{
        access::Payer,
        error::{Error, Result},
    },
    service::turns::CallerTurns,
};

/// Limits the reads of all rooms that run at once. Requests have the database's other connections.
pub const MAX_READS: usize = 8;
/// Limits the reads of one caller that run at once.
const MAX_CALLER_READS: usize = MAX_READS / 2;

/// The reads that run or wait. They are no more than the sockets, because each has one event at work.
pub struct Reads {
    all: Semaphore,
    of_callers: CallerTurns,
}

pub struct LastRead {
    pub began_at: Instant,
    pub has_succeeded: bool,
}

impl Reads {
    pub fn new() -> Self {
        Self { all: Semaphore::new(MAX_READS), of_callers: CallerTurns::new(MAX_CALLER_READS) }
    }

    pub fn running(&self) -> usize {
        MAX_READS - self.all.available_permits()
    }

    /// Waits until another read may run.
    ///
    /// # Errors
    /// `internal`.
    pub async fn permit(&self) -> Result<SemaphorePermit<'_>> {
        self.all.acquire().await.map_err(Error::internal)
    }

    /// Waits until the caller may ask for another read.
    ///
    /// # Errors
    /// `internal`.
    pub async fn share(&self, payer: Payer) -> Result<OwnedSemaphorePermit> {
        self.of_callers.wait(payer).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::UserId;

    #[tokio::test]
    async fn one_caller_leaves_others_a_place() {
        let reads = Reads::new();
        let [eve, ada] = [1, 2].map(|id| Payer::User(UserId::new(id).unwrap()));
        let mut held = Vec::new();
        for _ in 0..MAX_CALLER_READS {
            held.push((reads.share(eve).await.unwrap(), reads.permit().await.unwrap()));
        }
        let _ada = (reads.share(ada).await.unwrap(), reads.permit().await.unwrap());
        assert_eq!(reads.running(), MAX_CALLER_READS + 1);
    }
}
