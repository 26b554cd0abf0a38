//! Turns of reads: how many may be with the database at once, of one caller and of pieces of long answers.
//!
//! The connections for reading are few and are given in the order of asking, so a caller who asks for a lot at once
//! would put everybody else at the end of a long line. Here each caller has most of the connections at most, and waits
//! in a line of their own for the rest. Lists that are searched for have a line of their own: `searches.rs`.

use std::time::Duration;

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit},
    time::timeout,
};

use super::turns::CallerTurns;
use crate::domain::{
    access::Payer,
    error::{Code, Error, Result},
};

/// Reads of one caller that are with the database at once, of nine connections by default.
const MAX_READS_OF_CALLER: usize = 6;
/// Lists of members or of share links that are read for one caller at once. Each is paid for before the next begins.
const MAX_LISTS_OF_CALLER: usize = 2;
/// Pieces of long answers that are read and written as text at once. A row of a megabyte takes some four times as much
/// memory meanwhile.
const MAX_PIECES: usize = 2;
/// The longest time for which a read waits for its turn.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// The turns of reads.
#[derive(Debug)]
pub struct Reads {
    /// The reads under way of each caller; `None`: there is no limit.
    reads: Option<CallerTurns>,
    lists: CallerTurns,
    pieces: Semaphore,
}

impl Reads {
    /// Creates the turns; none is taken.
    pub fn new(is_limited: bool) -> Self {
        Self {
            reads: is_limited.then(|| CallerTurns::new(MAX_READS_OF_CALLER)),
            lists: CallerTurns::new(MAX_LISTS_OF_CALLER),
            pieces: Semaphore::new(MAX_PIECES),
        }
    }

    /// Waits for a caller's turn, which lasts until what is returned is dropped. There is nearly always nothing to wait
    /// for.
    ///
    /// # Errors
    /// `storage_unavailable` where it takes too long.
    pub async fn turn(&self, payer: Payer) -> Result<Option<OwnedSemaphorePermit>> {
        let Some(turns) = &self.reads else { return Ok(None) };
        match timeout(MAX_WAIT, turns.wait(payer)).await {
            Ok(turn) => turn.map(Some),
            Err(_) => {
                let detail = "too much is being read for this caller; try again";
                Err(Error::new(Code::StorageUnavailable, detail).after(MAX_WAIT))
            }
        }
    }

    /// Waits for a caller's turn to have a list of members or share links read.
    ///
    /// # Errors
    /// `internal`.
    pub async fn list_turn(&self, payer: Payer) -> Result<OwnedSemaphorePermit> {
        self.lists.wait(payer).await
    }

    /// Waits for the turn to read a piece of a long answer.
    ///
    /// # Errors
    /// `internal`.
    pub async fn piece_turn(&self) -> Result<SemaphorePermit<'_>> {
        self.pieces.acquire().await.map_err(Error::internal)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, future::join_all};

    use super::*;
    use crate::domain::id::UserId;

    fn user(id: u64) -> Payer {
        Payer::User(UserId::new(id).expect("an id"))
    }

    #[tokio::test]
    async fn a_caller_has_some_of_the_connections_and_the_rest_wait_in_order() {
        let reads = Reads::new(true);
        let mut under_way = join_all((0..MAX_READS_OF_CALLER).map(|_| reads.turn(user(1)))).await;
        let (mut gone, mut first) = (Box::pin(reads.turn(user(1))), Box::pin(reads.turn(user(1))));
        let mut second = Box::pin(reads.turn(user(1)));
        for waiting in [&mut gone, &mut first, &mut second] {
            assert!(waiting.now_or_never().is_none());
        }
        assert!(reads.turn(user(2)).await.is_ok(), "another does not wait");
        drop(gone);
        drop(under_way.pop());
        assert!((&mut second).now_or_never().is_none());
        let turn = first.await;
        drop(turn);
        under_way.push(second.await);
        drop(under_way);
        assert!(reads.reads.expect("limits").is_idle(), "all turns have come back");
        assert!(Reads::new(false).turn(user(1)).await.is_ok_and(|turn| turn.is_none()));
    }
}
