//! The changes that wait for the writer: how many there may be, and which of them are committed next.
//!
//! The queue is bounded as a whole and for each caller, by number and by bytes of bodies, so that nobody can fill it
//! alone. Where more waits than one transaction takes, callers take turns.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::domain::access::Payer;

/// What all callers may have waiting.
pub const TOTAL: Load = Load { changes: 4_096, bytes: 64 * 1024 * 1024 };
/// What one user may have waiting.
const OF_A_USER: Load = Load { changes: 512, bytes: 4 * 1024 * 1024 };
/// What one address may have waiting. Only in open mode addresses change anything, and then one may stand for a
/// backend that writes for everybody.
const OF_AN_ADDRESS: Load = Load { changes: TOTAL.changes / 2, bytes: TOTAL.bytes / 2 };
/// Changes of one transaction: bounds how many rows it locks.
pub const BATCH: usize = 512;
/// Bytes of the bodies of one transaction, the last apart: bounds how long the last of its changes waits.
const BATCH_BYTES: usize = 1024 * 1024;
/// New locations of one transaction: each takes a round trip of its own, and all together must not take longer
/// than [`crate::storage::error::STATEMENT_TIMEOUT`], over a slow network either.
const BATCH_CREATED: usize = 64;

/// A number of changes, and the bytes of their bodies.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    pub changes: usize,
    pub bytes: usize,
}

impl Load {
    fn with(self, bytes: usize) -> Self {
        Self { changes: self.changes + 1, bytes: self.bytes + bytes }
    }

    fn without(self, bytes: usize) -> Self {
        Self { changes: self.changes - 1, bytes: self.bytes - bytes }
    }

    fn fits(self, most: Self) -> bool {
        self.changes <= most.changes && self.bytes <= most.bytes
    }
}

/// Why a change finds no place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Full {
    /// The caller has too much waiting.
    Share,
    /// Everybody together has.
    Queue,
}

/// What is waiting or being committed. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Places(Arc<Mutex<Held>>);

/// Written when a change is sent and when it is settled; held for one look-up. Callers who have nothing waiting have
/// no entry, so it is bounded by [`TOTAL`].
#[derive(Debug, Default)]
struct Held {
    all: Load,
    by: HashMap<Option<Payer>, Load>,
}

/// The place of one change, given back when this is dropped.
#[derive(Debug)]
pub struct Place {
    places: Places,
    payer: Option<Payer>,
    bytes: usize,
}

impl Places {
    /// Takes a place for a change of a caller with a body of so many bytes.
    ///
    /// # Errors
    /// Where there is none.
    pub fn take(&self, payer: Option<Payer>, bytes: usize) -> Result<Place, Full> {
        let share = if matches!(payer, Some(Payer::User(_))) { OF_A_USER } else { OF_AN_ADDRESS };
        let Held { all, by } = &mut *self.0.lock();
        let (sum, theirs) = (all.with(bytes), by.get(&payer).copied().unwrap_or_default().with(bytes));
        if !theirs.fits(share) {
            return Err(Full::Share);
        }
        if !sum.fits(TOTAL) {
            return Err(Full::Queue);
        }
        *all = sum;
        by.insert(payer, theirs);
        Ok(Place { places: self.clone(), payer, bytes })
    }

    /// What is waiting or being committed, of all callers.
    pub fn held(&self) -> Load {
        self.0.lock().all
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Held { all, by } = &mut *self.places.0.lock();
        *all = all.without(self.bytes);
        if let Some(theirs) = by.get_mut(&self.payer) {
            *theirs = theirs.without(self.bytes);
            if theirs.changes == 0 {
                by.remove(&self.payer);
            }
        }
    }
}

/// A change, as far as it matters for when it is committed.
#[derive(Clone, Copy, Debug)]
pub struct Weight {
    pub payer: Option<Payer>,
    pub bytes: usize,
    pub is_creation: bool,
}

/// What a batch has so far.
struct Filling {
    most: usize,
    load: Load,
    created: usize,
}

impl Filling {
    /// Takes another change, if the batch is not full.
    fn takes(&mut self, change: Weight) -> bool {
        let Self { most, load, created } = self;
        let has_room = load.changes < *most && load.bytes < BATCH_BYTES && *created < BATCH_CREATED;
        if has_room {
            *load = load.with(change.bytes);
            *created += usize::from(change.is_creation);
        }
        has_room
    }
}

/// Takes the changes of the next batch, at most `most`, out of those that wait, in the order in which they came. If
/// not all fit, each caller's first change comes before anybody's second: however much one has waiting, a lone change
/// of another is in the next batch.
pub fn take_batch<T>(
    waiting: &mut VecDeque<T>,
    most: usize,
    weight: impl Fn(&T) -> Weight,
) -> impl Iterator<Item = T> {
    let filling = || Filling { most, load: Load::default(), created: 0 };
    let mut batch = filling();
    if waiting.iter().all(|change| batch.takes(weight(change))) {
        return std::mem::take(waiting).into_iter();
    }
    let mut counts: HashMap<Option<Payer>, usize> = HashMap::new();
    let mut turns: Vec<_> = waiting
        .iter()
        .enumerate()
        .map(|(at, change)| {
            let count = counts.entry(weight(change).payer).or_default();
            *count += 1;
            (*count, at)
        })
        .collect();
    turns.sort_unstable();
    let mut batch = filling();
    let mut is_taken = vec![false; waiting.len()];
    for (_, at) in turns.into_iter().take_while(|(_, at)| batch.takes(weight(&waiting[*at]))) {
        is_taken[at] = true;
    }
    let mut is_taken = is_taken.into_iter();
    let (taken, left): (VecDeque<_>, VecDeque<_>) =
        std::mem::take(waiting).into_iter().partition(|_| is_taken.next() == Some(true));
    *waiting = left;
    taken.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::UserId;

    /// Whose it is, which of theirs, and its bytes.
    type Change = (u64, usize, usize);

    fn payer(user: u64) -> Option<Payer> {
        Some(Payer::User(UserId::new(user).unwrap()))
    }

    fn weight((user, _, bytes): &Change) -> Weight {
        Weight { payer: payer(*user), bytes: *bytes, is_creation: false }
    }

    #[test]
    fn one_caller_gets_a_share_of_the_queue_and_gives_it_back() {
        let places = Places::default();
        let mut held: Vec<_> = (0..OF_A_USER.changes).map(|_| places.take(payer(1), 100).unwrap()).collect();
        assert_eq!(places.take(payer(1), 100).unwrap_err(), Full::Share);
        held.push(places.take(payer(2), OF_A_USER.bytes).unwrap());
        assert_eq!(places.take(payer(2), 1).unwrap_err(), Full::Share);
        held.pop();
        held.extend(
            (0..8).map(|at| places.take(None, if at < 4 { OF_AN_ADDRESS.bytes / 4 } else { 0 }).unwrap()),
        );
        assert_eq!(places.take(None, 1).unwrap_err(), Full::Share);
        for user in 3.. {
            match places.take(payer(user), OF_A_USER.bytes) {
                Ok(place) => held.push(place),
                Err(full) => {
                    assert_eq!(
                        (full, user),
                        (Full::Queue, 3 + 7),
                        "32 MiB and seven times 4 MiB are waiting"
                    );
                    break;
                }
            }
        }
        drop(held);
        assert_eq!(places.held(), Load::default());
        assert!(places.0.lock().by.is_empty(), "nobody is remembered who has nothing waiting");
    }

    #[test]
    fn a_lone_change_is_in_the_next_batch_and_everybodys_stay_in_order() {
        let large = (0..50).map(|number| (1, number, 900_000));
        let mut waiting: VecDeque<Change> = large.chain([(2, 0, 100), (3, 0, 100), (2, 1, 100)]).collect();
        let mut next = || -> Vec<_> {
            take_batch(&mut waiting, BATCH, weight).map(|(user, number, _)| (user, number)).collect()
        };
        assert_eq!(next(), [(1, 0), (1, 1), (2, 0), (3, 0)]);
        assert_eq!(next(), [(1, 2), (1, 3), (2, 1)]);
    }

    #[test]
    fn a_batch_is_bounded_by_its_changes() {
        let mut waiting: VecDeque<Change> =
            (0..600).map(|number| (1, number, 100)).chain([(2, 0, 100)]).collect();
        let batch: Vec<_> = take_batch(&mut waiting, BATCH, weight).collect();
        assert_eq!((batch.len(), batch[0].1, batch[510].1, batch[511].0), (BATCH, 0, 510, 2));
        assert_eq!(waiting.front().map(|(_, number, _)| *number), Some(511));
        assert_eq!(take_batch(&mut waiting, 1, weight).count(), 1);
        assert_eq!(take_batch(&mut waiting, BATCH, weight).count(), 88);
        let created = |change: &Change| Weight { is_creation: true, ..weight(change) };
        let mut waiting: VecDeque<Change> = (0..100).map(|number| (1, number, 100)).collect();
        assert_eq!(take_batch(&mut waiting, BATCH, created).count(), BATCH_CREATED);
    }
}
