//! Limits: budgets together with the counter of refusals and the error that a refused caller is sent.

use std::{hash::Hash, time::Duration};

use super::budget::Budgets;
use crate::{
    domain::{
        access::Payer,
        error::{Error, Result},
        id::UserId,
    },
    metrics::Counter,
};

/// People told for the price of one request.
const PEOPLE_PER_REQUEST: u64 = 25;

/// A budget for each key, and the number of refusals.
#[derive(Debug)]
pub struct Limit<K> {
    /// The budgets.
    pub budgets: Budgets<K>,
    /// Counts refusals.
    pub refusals: Counter,
}

/// A budget for each user of a token, and another for each address without one.
#[derive(Debug)]
pub struct CallerLimit<K = Payer> {
    /// The budgets of users.
    pub user: Limit<K>,
    /// The budgets of addresses.
    pub address: Limit<K>,
    /// The text that refused callers are sent.
    pub detail: &'static str,
}

impl<K: Hash + Eq> Limit<K> {
    /// Takes one unit.
    ///
    /// # Errors
    /// `rate_limited` where there is none.
    pub fn take(&self, key: K, detail: &'static str) -> Result<()> {
        self.budgets.try_take(key, 1).map_err(|wait| refusal(&self.refusals, detail, wait))
    }
}

impl<K: Hash + Eq> CallerLimit<K> {
    /// The limit of this kind of caller.
    pub fn limit_of(&self, payer: Payer) -> &Limit<K> {
        match payer {
            Payer::User(_) => &self.user,
            Payer::Address(_) => &self.address,
        }
    }

    /// Forgets the budgets that are full again.
    pub fn forget(&self) {
        self.user.budgets.forget();
        self.address.budgets.forget();
    }

    /// Counts the budgets that are kept.
    pub fn count_kept(&self) -> usize {
        self.user.budgets.count_kept() + self.address.budgets.count_kept()
    }
}

impl CallerLimit {
    /// Takes one unit of a caller's budget.
    ///
    /// # Errors
    /// `rate_limited` where there is none.
    pub fn take(&self, payer: Payer) -> Result<()> {
        self.limit_of(payer).take(payer, self.detail)
    }

    /// Takes units from a caller's budget, which may then be in debt.
    pub fn charge(&self, payer: Payer, units: u64) {
        self.limit_of(payer).budgets.charge(payer, units);
    }

    /// Takes units from a caller's budget, which may then be in debt, unless it is already.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn charge_unless_in_debt(&self, payer: Payer, units: u64) -> Result<()> {
        let Limit { budgets, refusals } = self.limit_of(payer);
        budgets.charge_unless_in_debt(payer, units).map_err(|wait| refusal(refusals, self.detail, wait))
    }

    /// Checks that a caller's budget is not in debt.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn check_debt(&self, payer: Payer) -> Result<()> {
        self.check_debt_with(payer, self.detail)
    }

    /// The same with another text for those who are refused.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn check_debt_with(&self, payer: Payer, detail: &'static str) -> Result<()> {
        let Limit { budgets, refusals } = self.limit_of(payer);
        budgets.debt(&payer).map_or(Ok(()), |wait| Err(refusal(refusals, detail, wait)))
    }
}

/// The budgets that pay for telling people.
///
/// The writer asks under the locks of the rows it changes and charges after COMMIT, because only then it is known how
/// many people are told. So however many renames of one caller wait, few are made that are not paid for.
#[derive(Debug)]
pub struct FanOutBudgets {
    /// The budgets of requests, which also pay for the number of people told.
    pub requests: CallerLimit,
    /// The budgets of what one caller tells one person.
    pub pair_notices: CallerLimit<(Payer, UserId)>,
}

impl FanOutBudgets {
    /// Checks that a caller has paid for what they had people told before.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn check_debt(&self, payer: Payer) -> Result<()> {
        self.requests.check_debt_with(payer, "too many people had to be told of what was done before")
    }

    /// Charges a caller for people who were told.
    pub fn charge(&self, payer: Payer, people: usize) {
        self.requests.charge(payer, people as u64 / PEOPLE_PER_REQUEST);
    }

    /// Takes one unit of what a caller may tell one person.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn take_for_person(&self, payer: Payer, person: UserId) -> Result<()> {
        self.pair_notices.limit_of(payer).take((payer, person), self.pair_notices.detail)
    }
}

/// Counts a refusal and makes its error.
pub fn refusal(refusals: &Counter, detail: &'static str, wait: Duration) -> Error {
    refusals.inc();
    Error::limited(detail, wait)
}
