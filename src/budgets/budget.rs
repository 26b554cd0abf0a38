//! A budget is spent in units. Instead of a number of units it keeps the instant at which it will be full again, so a
//! full budget needs no entry at all. It can be charged after the fact, and then be in debt.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// Keys that are looked at for full budgets only when there are more of them.
const FEW_KEYS: usize = 1_024;
/// Budgets of one kind that are kept, about 64 MiB of them. Beyond that all of them begin anew, full: that many
/// callers who have all just spent something cannot be told apart from an honest crowd.
const MAX_KEYS: usize = 1_000_000;

/// The speed at which a budget refills, and how much it holds.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// The time in which one unit comes back.
    unit: Duration,
    /// The time in which an empty budget becomes full.
    full: Duration,
}

/// The state of one budget.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// The time at which it will be full if nothing more is spent; in the past it is full.
    full_at: Instant,
}

/// The budgets of many callers, with one rate.
#[derive(Debug)]
pub struct Budgets<K> {
    /// `None`: there is no limit, and nothing is counted.
    rate: Option<Rate>,
    /// The budgets that are not full, and some that have become full since. Written at every request, and locked for
    /// one look-up.
    kept: Mutex<Kept<K>>,
}

#[derive(Debug)]
struct Kept<K> {
    by: HashMap<K, Budget>,
    /// The number of entries at which full ones are looked for next.
    next_sweep: usize,
}

impl Rate {
    /// A rate of so many units in a period, of which at most `at_once` are kept for later.
    pub fn new(units: u32, period: Duration, at_once: u32) -> Self {
        let unit = (period / units.max(1)).max(Duration::from_nanos(1));
        Self { unit, full: unit.saturating_mul(at_once.max(1)) }
    }

    fn price(&self, units: u64) -> Duration {
        self.unit.saturating_mul(u32::try_from(units).unwrap_or(u32::MAX))
    }
}

impl Budget {
    /// A full budget.
    pub fn new(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// Takes units if there are so many. A price above what the budget can hold takes all of a full budget.
    ///
    /// # Errors
    /// The time to wait until there are enough.
    pub fn try_take(&mut self, rate: &Rate, units: u64, now: Instant) -> Result<(), Duration> {
        let full_at = self.full_at.max(now) + rate.price(units).min(rate.full);
        match (full_at - now).checked_sub(rate.full) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => {
                self.full_at = full_at;
                Ok(())
            }
        }
    }

    /// Takes units whether they are there or not.
    pub fn charge(&mut self, rate: &Rate, units: u64, now: Instant) {
        self.full_at = self.full_at.max(now) + rate.price(units);
    }

    /// The time until everything that was charged beyond the budget is paid for; `None`: nothing is owed.
    pub fn debt(&self, rate: &Rate, now: Instant) -> Option<Duration> {
        let owed = self.full_at.saturating_duration_since(now).checked_sub(rate.full);
        owed.filter(|owed| !owed.is_zero())
    }
}

impl<K: Hash + Eq> Budgets<K> {
    /// Budgets that are all full; without a rate there is no limit.
    pub fn new(rate: Option<Rate>) -> Self {
        Self { rate, kept: Mutex::new(Kept { by: HashMap::new(), next_sweep: FEW_KEYS }) }
    }

    /// See [`Budget::try_take`].
    ///
    /// # Errors
    /// The time to wait.
    pub fn try_take(&self, key: K, units: u64) -> Result<(), Duration> {
        let Some(rate) = &self.rate else { return Ok(()) };
        let now = Instant::now();
        self.kept.lock().entry(key, now).try_take(rate, units, now)
    }

    /// Takes units whether they are there or not, unless the budget is in debt.
    ///
    /// # Errors
    /// The time until what is owed is paid for.
    pub fn charge_unless_in_debt(&self, key: K, units: u64) -> Result<(), Duration> {
        let Some(rate) = &self.rate else { return Ok(()) };
        let (now, mut kept) = (Instant::now(), self.kept.lock());
        if let Some(owed) = kept.by.get(&key).and_then(|budget| budget.debt(rate, now)) {
            return Err(owed);
        }
        if units > 0 {
            kept.entry(key, now).charge(rate, units, now);
        }
        Ok(())
    }

    /// See [`Budget::charge`].
    pub fn charge(&self, key: K, units: u64) {
        if let Some(rate) = self.rate.as_ref().filter(|_| units > 0) {
            let now = Instant::now();
            self.kept.lock().entry(key, now).charge(rate, units, now);
        }
    }

    /// See [`Budget::debt`].
    pub fn debt(&self, key: &K) -> Option<Duration> {
        let rate = self.rate.as_ref()?;
        self.kept.lock().by.get(key)?.debt(rate, Instant::now())
    }

    /// Forgets the budgets that are full again.
    pub fn forget(&self) {
        self.kept.lock().forget(Instant::now());
    }

    /// Counts the budgets that are kept.
    pub fn count_kept(&self) -> usize {
        self.kept.lock().by.len()
    }
}

impl<K: Hash + Eq> Kept<K> {
    fn entry(&mut self, key: K, now: Instant) -> &mut Budget {
        if self.by.len() >= self.next_sweep {
            self.forget(now);
            if self.by.len() >= MAX_KEYS {
                self.by.clear();
            }
        }
        self.by.entry(key).or_insert_with(|| Budget::new(now))
    }

    fn forget(&mut self, now: Instant) {
        self.by.retain(|_, budget| budget.full_at > now);
        self.by.shrink_to(2 * self.by.len());
        self.next_sweep = (2 * self.by.len()).clamp(FEW_KEYS, MAX_KEYS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_budget_gives_so_many_at_once_and_then_as_many_as_come_back() {
        let (rate, now) = (Rate::new(10, SECOND, 50), Instant::now());
        let mut budget = Budget::new(now);
        for _ in 0..50 {
            assert_eq!(budget.try_take(&rate, 1, now), Ok(()));
        }
        assert_eq!(budget.try_take(&rate, 1, now), Err(SECOND / 10));
        assert_eq!(budget.try_take(&rate, 5, now), Err(SECOND / 2));
        assert_eq!(budget.try_take(&rate, 5, now + SECOND / 2), Ok(()));
        // A pause fills it, and no more than that.
        let later = now + 60 * SECOND;
        assert_eq!(budget.try_take(&rate, 50, later), Ok(()));
        assert_eq!(budget.try_take(&rate, 1, later), Err(SECOND / 10));
    }

    #[test]
    fn what_costs_more_than_a_budget_holds_is_let_through_when_it_is_full() {
        let (rate, now) = (Rate::new(10, SECOND, 50), Instant::now());
        let mut budget = Budget::new(now);
        assert_eq!(budget.try_take(&rate, 1_000, now), Ok(()));
        assert_eq!(budget.try_take(&rate, 1_000, now), Err(5 * SECOND));
    }

    #[test]
    fn a_charge_may_run_into_debt_and_is_paid_by_waiting() {
        let (rate, now) = (Rate::new(10, SECOND, 50), Instant::now());
        let mut budget = Budget::new(now);
        budget.charge(&rate, 50, now);
        assert_eq!(budget.debt(&rate, now), None, "empty, but nothing is owed");
        budget.charge(&rate, 20, now);
        assert_eq!(budget.debt(&rate, now), Some(2 * SECOND));
        assert_eq!(budget.try_take(&rate, 1, now), Err(2 * SECOND + SECOND / 10));
        assert_eq!(budget.debt(&rate, now + 2 * SECOND), None);
    }

    /// Half of what there is a second: never in debt, however long.
    #[test]
    fn a_bus_with_ten_thousand_followers_pays_as_it_goes() {
        let (rate, mut now) = (Rate::new(20_000, SECOND, 200_000), Instant::now());
        let mut budget = Budget::new(now);
        for _ in 0..3_600 {
            budget.charge(&rate, 10_000, now);
            assert_eq!(budget.debt(&rate, now), None);
            now += SECOND;
        }
    }

    #[test]
    fn budgets_are_apart_and_full_ones_are_forgotten() {
        let budgets = Budgets::new(Some(Rate::new(1, Duration::from_millis(1), 1)));
        budgets.charge(1, 10_000);
        assert!(budgets.debt(&1).is_some() && budgets.debt(&2).is_none());
        assert!(budgets.charge_unless_in_debt(1, 0).is_err());
        assert_eq!(
            (budgets.charge_unless_in_debt(2, 0), budgets.count_kept()),
            (Ok(()), 1),
            "nothing is nothing to keep"
        );
        assert_eq!(budgets.try_take(2, 1), Ok(()));
        for key in 3..10 * FEW_KEYS {
            assert_eq!(budgets.try_take(key, 1), Ok(()));
        }
        std::thread::sleep(Duration::from_millis(2));
        budgets.forget();
        assert_eq!(budgets.count_kept(), 1, "only the one in debt");
    }

    #[test]
    fn without_a_rate_nothing_is_counted() {
        let budgets = Budgets::new(None);
        budgets.charge(1, u64::MAX);
        assert_eq!(
            (budgets.try_take(1, u64::MAX), budgets.debt(&1), budgets.count_kept()),
            (Ok(()), None, 0)
        );
    }
}
