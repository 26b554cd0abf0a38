//! A bound on bytes that the process holds for its callers at one time: a total for all, and a share for each.
//!
//! Each request and each socket is bounded by itself; this bounds their sum. Nothing waits here: a request that gets no
//! room is refused at once, so a caller who holds bytes cannot hold up the others.
//!
//! A few callers cannot fill a fair budget. The most that one may hold falls with the cube of what is left: a dynamic
//! threshold after Choudhury and Hahne (1998), but steeper, because a caller need not ever give back what they hold.
//! With a share of a quarter, one caller alone reaches the share; four who take all they can, one after the other,
//! leave 46 % and the fifth gets a 25th; forty leave 14 %. Besides, each caller may always hold a little, even beyond
//! the total.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use parking_lot::Mutex;

/// A total number of bytes, and how much of it one caller may hold. Cheap to clone.
#[derive(Debug)]
pub struct ByteBudget<K: Hash + Eq + Copy>(Arc<Inner<K>>);

#[derive(Debug)]
struct Inner<K> {
    total: usize,
    share: usize,
    /// The bytes that each caller may hold whatever the others hold. `None`: the budget is not fair, and whoever comes
    /// first is served first.
    guaranteed: Option<usize>,
    /// The bytes that are held now. Written whenever bytes are reserved or given back; the lock is held for one
    /// look-up. Callers who hold nothing have no entry, so the map is bounded by `total` and by the callers who hold
    /// what they are guaranteed.
    held: Mutex<Held<K>>,
}

#[derive(Debug)]
struct Held<K> {
    all: usize,
    by: HashMap<K, usize>,
}

/// Bytes that one caller holds. Dropping it gives them back.
#[derive(Debug)]
pub struct Reservation<K: Hash + Eq + Copy> {
    budget: ByteBudget<K>,
    key: K,
    bytes: usize,
}

impl<K: Hash + Eq + Copy> ByteBudget<K> {
    /// Makes a budget of `total` bytes, of which one caller may hold `share`; `usize::MAX` is as much as there is.
    pub fn new(total: usize, share: usize) -> Self {
        Self::create(total, share, None)
    }

    /// Makes a fair budget: each caller may hold `guaranteed` bytes whatever the others hold.
    pub fn fair(total: usize, share: usize, guaranteed: usize) -> Self {
        Self::create(total, share, Some(guaranteed))
    }

    fn create(total: usize, share: usize, guaranteed: Option<usize>) -> Self {
        let held = Mutex::new(Held { all: 0, by: HashMap::new() });
        Self(Arc::new(Inner { total, share, guaranteed, held }))
    }

    /// Reserves bytes for a caller. Returns `None` if the caller's share or the total is spent.
    pub fn reserve(&self, key: K, bytes: usize) -> Option<Reservation<K>> {
        let mut reservation = Reservation { budget: self.clone(), key, bytes: 0 };
        reservation.grow(bytes).then_some(reservation)
    }

    /// Counts bytes that cannot be refused any more, whether or not there is room for them. That leaves less for
    /// others.
    pub fn record(&self, key: K, bytes: usize) -> Reservation<K> {
        let Held { all, by } = &mut *self.0.held.lock();
        *all += bytes;
        if bytes > 0 {
            *by.entry(key).or_default() += bytes;
        }
        Reservation { budget: self.clone(), key, bytes }
    }

    /// Would the caller's own share be exceeded by so many bytes more?
    pub fn exceeds_share(&self, key: K, more: usize) -> bool {
        let theirs = self.0.held.lock().by.get(&key).copied().unwrap_or_default();
        theirs.saturating_add(more) > self.0.share
    }

    /// Says whether there is room for `more` bytes of this caller.
    pub fn has_room(&self, key: K, more: usize) -> bool {
        let Held { all, by } = &*self.0.held.lock();
        self.0.fits(by.get(&key).copied().unwrap_or_default(), *all, more)
    }

    /// Returns the bytes that all callers hold now.
    pub fn used(&self) -> usize {
        self.0.held.lock().all
    }

    /// Returns the bytes that all callers may hold together.
    pub fn total(&self) -> usize {
        self.0.total
    }
}

impl<K: Hash + Eq + Copy> Inner<K> {
    /// May a caller hold `more` bytes beside `theirs`, while all callers hold `all`?
    fn fits(&self, theirs: usize, all: usize, more: usize) -> bool {
        let (Some(theirs), Some(all)) = (theirs.checked_add(more), all.checked_add(more)) else {
            return false;
        };
        if theirs > self.share {
            return false;
        }
        let Some(guaranteed) = self.guaranteed else { return all <= self.total };
        theirs <= guaranteed || theirs <= self.threshold(self.total.saturating_sub(all))
    }

    /// Returns the most that a caller may hold while `left` bytes of a fair budget are left: the whole share while
    /// nobody else holds anything.
    fn threshold(&self, left: usize) -> usize {
        let without_share = self.total.saturating_sub(self.share).max(1);
        (self.share as f64 * (left as f64 / without_share as f64).powi(3)) as usize
    }
}

impl<K: Hash + Eq + Copy> Reservation<K> {
    /// Reserves more bytes. Returns `false`, and changes nothing, if the caller's share or the total is spent.
    pub fn grow(&mut self, more: usize) -> bool {
        if more == 0 {
            return true;
        }
        let inner = &*self.budget.0;
        let Held { all, by } = &mut *inner.held.lock();
        let theirs = by.get(&self.key).copied().unwrap_or_default();
        if !inner.fits(theirs, *all, more) {
            return false;
        }
        *all += more;
        by.insert(self.key, theirs + more);
        self.bytes += more;
        true
    }

    /// Gives some of the bytes back, at most all of them.
    pub fn shrink(&mut self, less: usize) {
        let less = less.min(self.bytes);
        if less == 0 {
            return;
        }
        let Held { all, by } = &mut *self.budget.0.held.lock();
        *all -= less;
        self.bytes -= less;
        if let Some(theirs) = by.get_mut(&self.key) {
            *theirs -= less;
            if *theirs == 0 {
                by.remove(&self.key);
            }
        }
    }

    /// Returns the caller who holds the bytes.
    pub fn key(&self) -> K {
        self.key
    }

    /// Returns the number of bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl<K: Hash + Eq + Copy> Drop for Reservation<K> {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

impl<K: Hash + Eq + Copy> Clone for ByteBudget<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_caller_gets_a_share_and_all_together_the_total() {
        let budget = ByteBudget::new(100, 60);
        let mut first = budget.reserve(1, 50).unwrap();
        assert!(first.grow(10) && !first.grow(1), "the share is 60");
        assert!(budget.reserve(1, 1).is_none());
        let second = budget.reserve(2, 40).unwrap();
        assert!(budget.reserve(3, 1).is_none(), "the total is 100");
        assert_eq!((budget.used(), first.bytes(), second.bytes()), (100, 60, 40));
        first.shrink(30);
        assert_eq!(budget.reserve(3, 30).unwrap().bytes(), 30);
        drop((first, second));
        assert_eq!(budget.used(), 0);
        assert!(budget.0.held.lock().by.is_empty(), "a caller who holds nothing is forgotten");
        assert!(budget.reserve(1, usize::MAX).is_none());
    }

    /// Takes all that a caller gets in steps of 16 KiB.
    fn take_all(budget: &ByteBudget<u32>, key: u32) -> Reservation<u32> {
        let mut held = budget.reserve(key, 0).unwrap();
        while held.grow(16 << 10) {}
        held
    }

    #[test]
    fn one_caller_alone_reaches_the_share_of_a_fair_budget() {
        let budget = ByteBudget::fair(64 << 20, 16 << 20, 256 << 10);
        let held = take_all(&budget, 1);
        assert_eq!(held.bytes(), 16 << 20);
        assert!(budget.exceeds_share(1, 1) && !budget.has_room(1, 1));
    }

    #[test]
    fn greedy_callers_leave_room_for_those_who_come_later() {
        for (greedy, most, least) in [(4, 35 << 20, 2 << 20), (40, 56 << 20, 96 << 10)] {
            let budget = ByteBudget::fair(64 << 20, 16 << 20, 32 << 10);
            let held = Vec::from_iter((0..greedy).map(|key| take_all(&budget, key)));
            assert!(budget.used() <= most, "{greedy} callers hold {}", budget.used());
            let later = take_all(&budget, greedy);
            assert!(later.bytes() >= least, "the next after {greedy} gets {}", later.bytes());
            drop(held);
            assert_eq!(budget.used(), later.bytes());
        }
    }

    #[test]
    fn greedy_callers_who_come_at_once_get_the_same() {
        let budget = ByteBudget::fair(64 << 20, 16 << 20, 32 << 10);
        let mut held = Vec::from_iter((0..40).map(|key| budget.reserve(key, 0).unwrap()));
        while held.iter_mut().filter_map(|held| held.grow(16 << 10).then_some(())).count() > 0 {}
        assert!(held.iter().all(|held| held.bytes() >= 1 << 20), "{held:?}");
        assert!(take_all(&budget, 40).bytes() >= 900 << 10);
    }

    #[test]
    fn a_fair_budget_never_refuses_a_caller_who_holds_little() {
        let budget = ByteBudget::fair(1 << 20, 1 << 20, 32 << 10);
        let _full = budget.record(9, 8 << 20);
        let mut small = budget.reserve(1, 20 << 10).unwrap();
        assert!(small.grow(12 << 10) && !small.grow(1));
        assert!(budget.has_room(2, 32 << 10) && !budget.has_room(2, 33 << 10));
        assert!(!budget.exceeds_share(2, 33 << 10), "the others hold too much, not this one");
        assert!(!budget.has_room(1, usize::MAX));
    }

    #[test]
    fn recorded_bytes_count_even_beyond_the_share() {
        let budget = ByteBudget::new(100, 60);
        assert!(!budget.exceeds_share(1, 60) && budget.exceeds_share(1, 61));
        let (held, nothing) = (budget.record(1, 150), budget.record(2, 0));
        assert_eq!((budget.used(), held.bytes(), nothing.bytes()), (150, 150, 0));
        assert!(budget.exceeds_share(1, 0) && budget.reserve(2, 1).is_none());
        drop((held, nothing));
        assert_eq!(budget.used(), 0);
        assert!(budget.0.held.lock().by.is_empty());
    }
}
