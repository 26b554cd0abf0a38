//! How many reads of one caller may be with the database at once.
//!
//! The connections for reading are few and first come is first served there, so a caller who asks for a lot at once
//! would put everybody else at the end of a long line. Here each caller has most of the connections at most, and
//! whoever has so many reads under way waits in a line of their own.

use std::time::Duration;

use tokio::{sync::OwnedSemaphorePermit, time::timeout};

use super::turns::CallerTurns;
use crate::domain::{
    access::Payer,
    error::{Code, Error, Result},
};

/// Reads of one caller that are with the database at once, of nine connections by default.
const READS_OF_ONE: usize = 6;
/// How long one may wait for its turn.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// Reads that are under way, of each caller who has any; `None`: they are not limited.
#[derive(Debug)]
pub struct Reads(Option<CallerTurns>);

impl Reads {
    /// None are under way yet.
    pub fn new(is_limited: bool) -> Self {
        Self(is_limited.then(|| CallerTurns::new(READS_OF_ONE)))
    }

    /// Waits for a caller's turn, which lasts until what is returned is dropped; nearly always there is nothing to
    /// wait for.
    ///
    /// # Errors
    /// `storage_unavailable`: it takes too long.
    pub async fn turn(&self, payer: Payer) -> Result<Option<OwnedSemaphorePermit>> {
        let Some(turns) = &self.0 else { return Ok(None) };
        match timeout(MAX_WAIT, turns.wait(payer)).await {
            Ok(turn) => turn.map(Some),
            Err(_) => {
                let detail = "too much is being read for this caller; try again";
                Err(Error::new(Code::StorageUnavailable, detail).after(MAX_WAIT))
            }
        }
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
        let mut under_way = join_all((0..READS_OF_ONE).map(|_| reads.turn(user(1)))).await;
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
        assert!(reads.0.expect("limits").is_idle(), "all turns have come back");
        assert!(Reads::new(false).turn(user(1)).await.is_ok_and(|turn| turn.is_none()));
    }
}
