//! The acts on users: the list of those who are connected, and names. The cache of names is in `names.rs`.

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

    /// Looks up the names of users. Users without a name are left out.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn look_up_names(&self, users: &[UserId]) -> Result<Vec<(UserId, String)>> {
        self.names.look_up(users).await
    }

    /// The name of a user as a token has said it here, if that is not too long ago.
    pub fn cached_name(&self, user: UserId) -> Option<String> {
        self.names.get(user)
    }
}
