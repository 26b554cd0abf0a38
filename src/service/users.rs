//! Users: what they are called, and who of them is connected.

use super::state::Service;
use crate::domain::{
    access::Caller,
    error::{Code, Error, Result},
    id::UserId,
    presence::ActiveUsers,
};

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

    /// What users are called by the last token that said so; of several names of one the first counts.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn names(&self, users: &[UserId]) -> Result<Vec<(UserId, String)>> {
        self.store.names_of(users).await
    }

    /// What a user is called by the last token that said so here, if that is not too long ago.
    pub fn name_said(&self, user: UserId) -> Option<String> {
        let (mut named, _) = self.store.names.of(&[user]);
        named.pop().map(|(_, name)| name)
    }
}
