//! Builds limits from the settings: rates, how much of them may come at once, and the counters of refusals.

use std::{hash::Hash, num::NonZeroU32, time::Duration};

use crate::{
    budgets::{Budgets, CallerLimit, Limit, Rate},
    config::Quotas,
    metrics::Metrics,
};

pub const SECOND: Duration = Duration::from_secs(1);
pub const MINUTE: Duration = Duration::from_secs(60);
/// An address stands for so many users where a limit has no setting for addresses.
const USERS_OF_AN_ADDRESS: NonZeroU32 = NonZeroU32::new(5).expect("not zero");

/// The settings and metrics that limits are built from.
pub struct Builder<'a> {
    /// The settings; `None`: without limits.
    pub quotas: Option<&'a Quotas>,
    /// The metrics that count refusals.
    pub metrics: &'a Metrics,
}

impl Builder<'_> {
    /// A limit with a rate.
    pub fn limit<K: Hash + Eq>(&self, name: &'static str, rate: impl Fn(&Quotas) -> Rate) -> Limit<K> {
        Limit { budgets: Budgets::new(self.quotas.map(rate)), refusals: self.metrics.limited(name) }
    }

    /// A limit of units a second, of which `burst` seconds' worth may come at once.
    pub fn limit_per_second<K: Hash + Eq>(
        &self,
        name: &'static str,
        units: impl Fn(&Quotas) -> NonZeroU32,
        burst: u32,
    ) -> Limit<K> {
        self.limit(name, |quotas| per_second(units(quotas), burst))
    }

    /// A limit of units a second for each caller. `units` are those of a user and of an address.
    pub fn caller_limit<K: Hash + Eq>(
        &self,
        names: [&'static str; 2],
        units: fn(&Quotas) -> [NonZeroU32; 2],
        burst: u32,
        detail: &'static str,
    ) -> CallerLimit<K> {
        let rates = |quotas: &Quotas| units(quotas).map(|units| per_second(units, burst));
        self.caller_limit_at(names, rates, detail)
    }

    /// A limit for each caller, with the rates of a user and of an address.
    pub fn caller_limit_at<K: Hash + Eq>(
        &self,
        names: [&'static str; 2],
        rates: impl Fn(&Quotas) -> [Rate; 2],
        detail: &'static str,
    ) -> CallerLimit<K> {
        let [user, address] = [0, 1].map(|at| self.limit(names[at], |quotas| rates(quotas)[at]));
        CallerLimit { user, address, detail }
    }
}

/// A rate of units a second, of which `burst` seconds' worth may come at once.
pub fn per_second(units: NonZeroU32, burst: u32) -> Rate {
    Rate::new(units.get(), SECOND, units.get().saturating_mul(burst))
}

/// The units of a user, and those of an address where these have no setting.
pub fn with_address(units: NonZeroU32) -> [NonZeroU32; 2] {
    [units, units.saturating_mul(USERS_OF_AN_ADDRESS)]
}
