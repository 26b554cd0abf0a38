//! The list of the users who are connected. Their names are in `names.rs`.

use super::state::Service;
use crate::domain::{
    access::Caller,
    error::{Code, Error, Result},
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
}
