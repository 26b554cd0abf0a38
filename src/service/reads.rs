//! How many reads of one caller may be with the database at once.
//!
//! The connections for reading are few and first come is first served there, so a caller who asks for a lot at once
//! would put everybody else at the end of a long line. Here each caller has most of the connections at most, and
//! whoever has so many reads under way waits in a line of their own.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::oneshot, time::timeout};

use crate::domain::{
    access::Whose,
    error::{Code, Error, Result},
};

/// Reads of one caller that are with the database at once, of ten connections.
const READS_OF_ONE: usize = 6;
/// How long one may wait for its turn.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// Reads that are under way, of each caller who has any.
#[derive(Debug)]
pub struct Reads {
    /// Written when a read begins and ends; held for one look-up. Bounded by the connections that ask. `None`: no
    /// limit.
    by: Option<Arc<Mutex<HashMap<Whose, Theirs>>>>,
}

#[derive(Debug, Default)]
struct Theirs {
    reads: usize,
    /// Those that wait, first come first; each is told by being handed the turn of one that has ended.
    waiting: VecDeque<oneshot::Sender<Turn>>,
}

/// A read that is under way, until this is dropped.
#[derive(Debug)]
pub struct Turn {
    by: Arc<Mutex<HashMap<Whose, Theirs>>>,
    whose: Whose,
}

impl Reads {
    /// None yet.
    pub fn new(is_limited: bool) -> Self {
        Self { by: is_limited.then(Arc::default) }
    }

    /// Waits for a caller's turn; nearly always there is nothing to wait for.
    ///
    /// # Errors
    /// `storage_unavailable`: it takes too long.
    pub async fn turn(&self, whose: Whose) -> Result<Option<Turn>> {
        let Some(by) = &self.by else { return Ok(None) };
        let waits = {
            let mut all = by.lock();
            let theirs = all.entry(whose).or_default();
            if theirs.reads < READS_OF_ONE {
                theirs.reads += 1;
                return Ok(Some(Turn { by: by.clone(), whose }));
            }
            // Those who have gone meanwhile.
            while theirs.waiting.pop_front_if(|first| first.is_closed()).is_some() {}
            let (tell, told) = oneshot::channel();
            theirs.waiting.push_back(tell);
            told
        };
        match timeout(MAX_WAIT, waits).await {
            Ok(turn) => turn.map(Some).map_err(Error::internal),
            Err(_) => {
                let detail = "too much is being read for this caller; try again";
                Err(Error::new(Code::StorageUnavailable, detail).after(MAX_WAIT))
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Those who have gone are passed over; what they are handed would come back here.
        let mut all = self.by.lock();
        let Some(theirs) = all.get_mut(&self.whose) else { return };
        while let Some(next) = theirs.waiting.pop_front() {
            if next.is_closed() {
                continue;
            }
            let turn = Self { by: self.by.clone(), whose: self.whose };
            drop(all);
            // Dropped by who has gone just now, it is handed on from there.
            drop(next.send(turn));
            return;
        }
        theirs.reads -= 1;
        if theirs.reads == 0 {
            all.remove(&self.whose);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, future::join_all};

    use super::*;
    use crate::domain::id::UserId;

    fn user(id: u64) -> Whose {
        Whose::User(UserId::new(id).expect("an id"))
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
        assert!(reads.by.expect("limits").lock().is_empty());
        assert!(Reads::new(false).turn(user(1)).await.is_ok_and(|turn| turn.is_none()));
    }
}
