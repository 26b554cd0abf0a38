//! The price of what is told to many: how much a caller pays for the people who are told of a change.
//!
//! The writer asks under the locks of the rows it changes and charges after COMMIT, because only then it is known how
//! many people are told. So however many renames of one caller wait, few are made that are not paid for.

use super::limit::CallerLimit;
use crate::domain::{access::Payer, error::Result, id::UserId};

/// People told for the price of one request.
const PEOPLE_PER_REQUEST: u64 = 25;

/// The budgets that pay for telling people.
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
