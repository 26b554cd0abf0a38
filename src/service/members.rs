//! The acts on members: users who may see a location besides its owner, or move it.

use super::state::Service;
use crate::domain::{
    access::{Action, Caller, Payer, Role},
    error::Result,
    id::{LocationId, UserId},
};

pub use crate::storage::Member;

/// The members in the answer to a change that cost as much as one row.
const ANSWERED_MEMBERS: usize = 10;

impl Service {
    /// Reads the members of a location.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `rate_limited`, `storage_unavailable`, `internal`.
    pub async fn members(&self, by: &Caller, payer: Payer, id: LocationId) -> Result<Vec<Member>> {
        self.limits.check_rows(payer)?;
        let _turn = self.reads.turn(payer).await?;
        self.permit(by, id, Action::Meet).await?;
        let _turn = self.reads.list_turn(payer).await?;
        // Again: the lists that were before it in line are paid for now.
        self.limits.check_rows(payer)?;
        let members = self.read_members(id).await?;
        self.limits.record_rows(payer, members.len());
        Ok(members)
    }

    /// Makes a user a member of a location, or gives a member another role; returns all members.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `invalid_member`, `too_many_members`, `rate_limited`, `storage_unavailable`,
    /// `internal`.
    pub async fn set_member(
        &self,
        by: Caller,
        payer: Payer,
        id: LocationId,
        user: UserId,
        role: Role,
    ) -> Result<Vec<Member>> {
        // Before anything is changed: the answer lists all members.
        self.limits.check_rows(payer)?;
        self.names.write_of(&[by.user(), user]).await?;
        self.writer.set_member(by, Some(payer), id, (user, role)).await?;
        self.events.wait_until_settled().await;
        let _turn = self.reads.list_turn(payer).await?;
        let members = self.read_members(id).await?;
        // A backend that adds many members did not ask for the list each time.
        self.limits.record_rows(payer, members.len() / ANSWERED_MEMBERS);
        Ok(members)
    }

    /// Ends a membership, somebody else's or the caller's own. Once this returns, the user is out of the room.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `storage_unavailable`, `internal`.
    pub async fn remove_member(&self, by: Caller, payer: Payer, id: LocationId, user: UserId) -> Result<()> {
        self.names.write_of(&[by.user(), user]).await?;
        self.writer.remove_member(by, Some(payer), id, user).await?;
        self.events.wait_until_settled().await;
        Ok(())
    }

    async fn read_members(&self, id: LocationId) -> Result<Vec<Member>> {
        let mut members = self.store.members(id).await?;
        self.names.refresh(&mut members);
        Ok(members)
    }
}
