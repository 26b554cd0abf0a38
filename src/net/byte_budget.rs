//! A bound on bytes that the process holds for its callers at one time: a total for all, and a share for each.
//!
//! Each request and each socket is bounded by itself; this bounds their sum. Nobody waits here: whoever gets no
//! room answers at once that there is none, so a caller who holds bytes cannot hold up the others.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use parking_lot::Mutex;

/// A total number of bytes, and how much of it one caller may hold. Cheap to clone.
#[derive(Debug)]
pub struct ByteBudget<K: Hash + Eq + Copy>(Arc<Inner<K>>);

#[derive(Debug)]
struct Inner<K> {
    total: usize,
    share: usize,
    /// Written whenever bytes are reserved or given back; held for one look-up. Callers who hold nothing have no
    /// entry, so it is bounded by `total`.
    held: Mutex<Held<K>>,
}

#[derive(Debug)]
struct Held<K> {
    all: usize,
    by: HashMap<K, usize>,
}

/// Bytes that one caller holds, given back when this is dropped.
#[derive(Debug)]
pub struct Reservation<K: Hash + Eq + Copy> {
    budget: ByteBudget<K>,
    key: K,
    bytes: usize,
}

impl<K: Hash + Eq + Copy> ByteBudget<K> {
    /// A budget of `total` bytes, of which one caller may hold `share`.
    pub fn new(total: usize, share: usize) -> Self {
        let held = Mutex::new(Held { all: 0, by: HashMap::new() });
        Self(Arc::new(Inner { total, share: share.min(total), held }))
    }

    /// Reserves bytes for a caller. `None`: the caller's share or the total is spent.
    pub fn reserve(&self, key: K, bytes: usize) -> Option<Reservation<K>> {
        let mut reservation = Reservation { budget: self.clone(), key, bytes: 0 };
        reservation.grow(bytes).then_some(reservation)
    }

    /// Counts bytes that are held already, whether or not there is room for them. Only for what cannot be refused
    /// any more; it leaves less for what can.
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

    /// The bytes that are reserved now, of all callers.
    pub fn used(&self) -> usize {
        self.0.held.lock().all
    }

    /// The bytes there are for all callers.
    pub fn total(&self) -> usize {
        self.0.total
    }
}

impl<K: Hash + Eq + Copy> Reservation<K> {
    /// Reserves more bytes. `false`: the caller's share or the total is spent, and nothing has changed.
    pub fn grow(&mut self, more: usize) -> bool {
        if more == 0 {
            return true;
        }
        let Inner { total, share, held } = &*self.budget.0;
        let Held { all, by } = &mut *held.lock();
        let theirs = by.get(&self.key).copied().unwrap_or_default();
        let fits = |now: usize, most: usize| now.checked_add(more).is_some_and(|sum| sum <= most);
        if !fits(*all, *total) || !fits(theirs, *share) {
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

    /// Who holds them.
    pub fn key(&self) -> K {
        self.key
    }

    /// The bytes that are reserved by this.
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
        assert!(budget.0.held.lock().by.is_empty(), "nobody is remembered who holds nothing");
        assert!(budget.reserve(1, usize::MAX).is_none());
    }

    #[test]
    fn what_is_held_already_counts_even_beyond_the_share() {
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
