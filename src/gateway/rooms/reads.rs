//! Who may read from the database for a room at this moment.
//!
//! All rooms together run a bounded number of reads at once, and of these one caller has a share: however many
//! sockets ask, others' joins find a free place. Waiting for one's share comes before waiting for a room's turn, so
//! that nobody waits for a room with the turn of it in hand.

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::{
    domain::{
        access::Payer,
        error::{Error, Result},
    },
    service::turns::CallerTurns,
};

/// Reads of all rooms that may run at once; requests have the database's other connections.
pub const READS: usize = 8;
/// Reads of one caller that may run at once.
const READS_OF_A_CALLER: usize = READS / 2;

/// The reads that are running, and who waits for one. Bounded by the number of sockets: each has one event at work.
pub struct Reads {
    all: Semaphore,
    of_callers: CallerTurns,
}

impl Reads {
    /// None.
    pub fn new() -> Self {
        Self { all: Semaphore::new(READS), of_callers: CallerTurns::new(READS_OF_A_CALLER) }
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
        for _ in 0..READS_OF_A_CALLER {
            held.push((reads.share(eve).await.unwrap(), reads.permit().await.unwrap()));
        }
        let _ada = (reads.share(ada).await.unwrap(), reads.permit().await.unwrap());
        assert_eq!(reads.running(), READS_OF_A_CALLER + 1);
    }
}
