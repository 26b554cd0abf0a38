//! The acts on users: the list of those who are connected, and notifications of what others did.

use super::state::Service;
use crate::{
    domain::{
        access::{Caller, Payer},
        error::{Code, Error, Result},
        id::UserId,
        presence::ActiveUsers,
    },
    storage::Page,
};

pub use crate::storage::{Notification, Notifications};

impl Service {
    /// Lists the users who are connected, or were a moment ago.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn active_users(&self, by: &Caller) -> Result<ActiveUsers> {
        match by {
            Caller::Anyone(_) | Caller::User { is_admin: true, .. } => {
                Ok(self.live_rooms().map(|live| live.active_users()).unwrap_or_default())
            }
            _ => Err(Error::new(Code::Forbidden, "only admins see who is connected")),
        }
    }

    /// A page of the caller's own notifications, newest first; only the unread ones, or all.
    ///
    /// # Errors
    /// `forbidden`, `storage_unavailable`, `internal`.
    pub async fn notifications(
        &self,
        (by, payer): (&Caller, Payer),
        unread_only: bool,
        page: Page,
    ) -> Result<Notifications> {
        let _turn = self.reads.turn(payer).await?;
        self.store.notifications(person(by)?, unread_only, page).await
    }

    /// Notes that the caller has read a notification of theirs; once is enough.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `storage_unavailable`, `internal`.
    pub async fn read_notification(&self, by: &Caller, id: u64) -> Result<Notification> {
        let found = self.store.read_notification(person(by)?, id).await?;
        found.ok_or_else(|| Error::new(Code::NotFound, format!("there is no notification {id}")))
    }

    /// Notes that the caller has read all of them.
    ///
    /// # Errors
    /// `forbidden`, `storage_unavailable`, `internal`.
    pub async fn read_notifications(&self, by: &Caller) -> Result<()> {
        self.store.read_notifications(person(by)?).await
    }
}

/// Guests are nobody in particular.
fn person(by: &Caller) -> Result<UserId> {
    match by {
        Caller::Anyone(id) | Caller::User { id, .. } => Ok(*id),
        Caller::Guest(_) => Err(Error::new(Code::Forbidden, "a share link has no notifications")),
    }
}
