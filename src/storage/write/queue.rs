//! The changes that wait for the writer: how many there may be, and which of them are committed next.
//!
//! The queue is bounded as a whole and for each caller, by number and by bytes of bodies, so that nobody can fill it
//! alone. Where more waits than one transaction takes, callers take turns.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;

use crate::domain::access::Payer;

/// The changes that all callers together may have waiting.
pub const QUEUE: Load = Load { changes: 4_096, bytes: 64 * 1024 * 1024 };
/// The changes that one user may have waiting.
const USER_SHARE: Load = Load { changes: 512, bytes: 4 * 1024 * 1024 };
/// The changes that one address may have waiting. Only in open mode addresses change anything, and then one may stand
/// for a backend that writes for everybody.
const ADDRESS_SHARE: Load = Load { changes: QUEUE.changes / 2, bytes: QUEUE.bytes / 2 };
/// Changes of one transaction: bounds how many rows it locks.
pub const MAX_BATCH: usize = 512;
/// Bytes of the bodies of one transaction, its last one aside: bounds how long the last of its changes waits.
const MAX_BATCH_BYTES: usize = 1024 * 1024;
/// New locations of one transaction: each takes a round trip of its own, and all together must not take longer
/// than [`crate::storage::error::STATEMENT_TIMEOUT`], over a slow network either.
const MAX_BATCH_CREATED: usize = 64;
/// The time after which a caller who has too much waiting may try again. Nobody knows when there will be room.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

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

/// The reason why there is no slot for a change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Full {
    /// The caller's share of the queue is full.
    Share,
    /// The whole queue is full.
    Queue,
}

/// The slots of the queue that are taken. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Slots(Arc<Mutex<Taken>>);

/// The lock is held for one look-up, when a change is sent and when it is settled. Callers who have nothing waiting
/// have no entry, so [`QUEUE`] bounds the map.
#[derive(Debug, Default)]
struct Taken {
    all: Load,
    by_caller: HashMap<Option<Payer>, Load>,
}

/// The slot of one change, from when it is sent until it is settled. Given back when it is dropped.
#[derive(Debug)]
pub struct Slot {
    slots: Slots,
    payer: Option<Payer>,
    bytes: usize,
}

impl Slots {
    /// Takes a slot for a change of a caller with a body of so many bytes.
    ///
    /// # Errors
    /// If there is none.
    pub fn take(&self, payer: Option<Payer>, bytes: usize) -> Result<Slot, Full> {
        let share = if matches!(payer, Some(Payer::User(_))) { USER_SHARE } else { ADDRESS_SHARE };
        let Taken { all, by_caller } = &mut *self.0.lock();
        let sum = all.with(bytes);
        let of_caller = by_caller.get(&payer).copied().unwrap_or_default().with(bytes);
        if !of_caller.fits(share) {
            return Err(Full::Share);
        }
        if !sum.fits(QUEUE) {
            return Err(Full::Queue);
        }
        *all = sum;
        by_caller.insert(payer, of_caller);
        Ok(Slot { slots: self.clone(), payer, bytes })
    }

    /// Returns the changes of all callers that wait or are being committed.
    pub fn held(&self) -> Load {
        self.0.lock().all
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Taken { all, by_caller } = &mut *self.slots.0.lock();
        *all = all.without(self.bytes);
        if let Some(of_caller) = by_caller.get_mut(&self.payer) {
            *of_caller = of_caller.without(self.bytes);
            if of_caller.changes == 0 {
                by_caller.remove(&self.payer);
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
    /// Whether it has a transaction of its own.
    pub is_alone: bool,
}

/// A batch that is being filled.
struct Filling {
    most: usize,
    load: Load,
    created: usize,
    has_one_alone: bool,
}

impl Filling {
    fn new(most: usize) -> Self {
        Self { most, load: Load::default(), created: 0, has_one_alone: false }
    }

    /// Takes another change, if the batch has room for it.
    fn take(&mut self, change: Weight) -> bool {
        let Self { most, load, created, has_one_alone } = self;
        let has_room = load.changes < *most
            && load.bytes < MAX_BATCH_BYTES
            && *created < MAX_BATCH_CREATED
            && !*has_one_alone
            && (!change.is_alone || load.changes == 0);
        if has_room {
            *load = load.with(change.bytes);
            *created += usize::from(change.is_creation);
            *has_one_alone = change.is_alone;
        }
        has_room
    }
}

/// Takes the changes of the next batch, at most `most`, out of those that wait, in the order in which they came. If
/// not all fit, each caller's first change comes before anybody's second: however much one caller has waiting, a lone
/// change of another is in the next batch, or in one of the next if some have transactions of their own.
pub fn take_batch<T>(
    waiting: &mut VecDeque<T>,
    most: usize,
    weight: impl Fn(&T) -> Weight,
) -> impl Iterator<Item = T> {
    let mut batch = Filling::new(most);
    if waiting.iter().all(|change| batch.take(weight(change))) {
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
    let mut batch = Filling::new(most);
    let mut is_taken = vec![false; waiting.len()];
    for (_, at) in turns.into_iter().take_while(|(_, at)| batch.take(weight(&waiting[*at]))) {
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

    /// The user, the number of the change among theirs, and its bytes.
    type Change = (u64, usize, usize);

    fn payer(user: u64) -> Option<Payer> {
        Some(Payer::User(UserId::new(user).unwrap()))
    }

    fn weight((user, _, bytes): &Change) -> Weight {
        Weight { payer: payer(*user), bytes: *bytes, is_creation: false, is_alone: false }
    }

    #[test]
    fn one_caller_gets_a_share_of_the_queue_and_gives_it_back() {
        let slots = Slots::default();
        let mut held: Vec<_> = (0..USER_SHARE.changes).map(|_| slots.take(payer(1), 100).unwrap()).collect();
        assert_eq!(slots.take(payer(1), 100).unwrap_err(), Full::Share);
        held.push(slots.take(payer(2), USER_SHARE.bytes).unwrap());
        assert_eq!(slots.take(payer(2), 1).unwrap_err(), Full::Share);
        held.pop();
        held.extend(
            (0..8).map(|at| slots.take(None, if at < 4 { ADDRESS_SHARE.bytes / 4 } else { 0 }).unwrap()),
        );
        assert_eq!(slots.take(None, 1).unwrap_err(), Full::Share);
        for user in 3.. {
            match slots.take(payer(user), USER_SHARE.bytes) {
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
        assert_eq!(slots.held(), Load::default());
        assert!(slots.0.lock().by_caller.is_empty(), "nobody is remembered who has nothing waiting");
    }

    #[test]
    fn a_lone_change_is_in_the_next_batch_and_everybodys_stay_in_order() {
        let large = (0..50).map(|number| (1, number, 900_000));
        let mut waiting: VecDeque<Change> = large.chain([(2, 0, 100), (3, 0, 100), (2, 1, 100)]).collect();
        let mut next = || -> Vec<_> {
            take_batch(&mut waiting, MAX_BATCH, weight).map(|(user, number, _)| (user, number)).collect()
        };
        assert_eq!(next(), [(1, 0), (1, 1), (2, 0), (3, 0)]);
        assert_eq!(next(), [(1, 2), (1, 3), (2, 1)]);
    }

    #[test]
    fn a_batch_is_bounded_by_its_changes() {
        let mut waiting: VecDeque<Change> =
            (0..600).map(|number| (1, number, 100)).chain([(2, 0, 100)]).collect();
        let batch: Vec<_> = take_batch(&mut waiting, MAX_BATCH, weight).collect();
        assert_eq!((batch.len(), batch[0].1, batch[510].1, batch[511].0), (MAX_BATCH, 0, 510, 2));
        assert_eq!(waiting.front().map(|(_, number, _)| *number), Some(511));
        assert_eq!(take_batch(&mut waiting, 1, weight).count(), 1);
        assert_eq!(take_batch(&mut waiting, MAX_BATCH, weight).count(), 88);
        let created = |change: &Change| Weight { is_creation: true, ..weight(change) };
        let mut waiting: VecDeque<Change> = (0..100).map(|number| (1, number, 100)).collect();
        assert_eq!(take_batch(&mut waiting, MAX_BATCH, created).count(), MAX_BATCH_CREATED);
    }

    #[test]
    fn what_has_a_transaction_of_its_own_is_taken_alone_and_in_its_turn() {
        let mut waiting: VecDeque<Change> = [(1, 0, 1), (2, 0, 0), (3, 0, 1), (1, 1, 0)].into();
        let alone = |change: &Change| Weight { is_alone: change.2 == 0, ..weight(change) };
        let mut next = || -> Vec<_> {
            take_batch(&mut waiting, MAX_BATCH, alone).map(|(user, number, _)| (user, number)).collect()
        };
        assert_eq!(next(), [(1, 0)]);
        assert_eq!(next(), [(2, 0)]);
        assert_eq!(next(), [(3, 0)]);
        assert_eq!(next(), [(1, 1)]);
        assert_eq!(next(), []);
    }
}
