//! The price of an act: its caller pays by how many people are told of it, and for each person.

use crate::{
    domain::{access::Payer, error::Result, event::Event, id::UserId},
    storage::pool::Store,
};

impl Store {
    /// Checks that a payer may have many people told of an act; `None`: nobody pays.
    ///
    /// # Errors
    /// `rate_limited`.
    pub(super) fn check_debt(&self, payer: Option<Payer>) -> Result<()> {
        self.fan_out.as_ref().zip(payer).map_or(Ok(()), |(budgets, payer)| budgets.check_debt(payer))
    }

    /// Draws on what a caller may tell one person; `None`: there is no such limit.
    ///
    /// # Errors
    /// `rate_limited`.
    pub(super) fn take_for_person(&self, pair_payer: Option<Payer>, person: UserId) -> Result<()> {
        let payer = self.fan_out.as_ref().zip(pair_payer);
        payer.map_or(Ok(()), |(budgets, payer)| budgets.take_for_person(payer, person))
    }

    /// Charges a payer for the people who are told by an event.
    pub(super) fn charge(&self, payer: Option<Payer>, event: &Event) {
        let people = match event {
            // One of them has mostly done it.
            Event::ListChanged { to, .. } => to.len().saturating_sub(1),
            Event::Notified(notice) => notice.recipients.len(),
            _ => return,
        };
        if let (Some(budgets), Some(payer)) = (&self.fan_out, payer) {
            budgets.charge(payer, people);
        }
    }
}
