//! The rights to a location, as far as its room knows them.
//!
//! A room reads rights when the first caller comes whose role depends on them (never in open mode), and is then told of
//! changes. `domain/access.rs` decides; `expel.rs` takes out members whose right has ended.

use crate::domain::{
    access::{Access, Caller, RightsChange, Role},
    error::Result,
    id::LocationId,
    time::Timestamp,
};

/// The rights to the location of a room.
#[derive(Default)]
pub struct Rights {
    /// `None`: not read yet.
    access: Option<Access>,
    /// The changes that have come since a read of rights began, while it is under way.
    changes_during_read: Option<Vec<RightsChange>>,
}

/// The caller's role depends on rights that were not read yet.
#[derive(Debug)]
pub struct NotRead;

impl Rights {
    /// Returns the role of a caller; `None`: a stranger's.
    ///
    /// # Errors
    /// [`NotRead`].
    pub fn role(&self, caller: &Caller, id: LocationId) -> std::result::Result<Option<Role>, NotRead> {
        match caller {
            Caller::Anyone(_) | Caller::User { is_admin: true, .. } => Ok(Some(Role::Owner)),
            _ => {
                let access = self.access.as_ref().ok_or(NotRead)?;
                Ok(access.role(caller, id, Timestamp::now()))
            }
        }
    }

    /// Checks whether they were read.
    pub fn are_known(&self) -> bool {
        self.access.is_some()
    }

    /// Begins to collect changes, which may be missing in what is read from now on.
    pub fn begin_read(&mut self) {
        self.changes_during_read = Some(Vec::new());
    }

    /// Takes the result of a read, with the changes that came meanwhile. It returns the number of rows read.
    ///
    /// # Errors
    /// The error of the read. What was known before stays.
    pub fn end_read(&mut self, read: Result<Access>) -> Result<usize> {
        // A change that was committed before the read is in it already, and does no harm a second time.
        let changes = self.changes_during_read.take().unwrap_or_default();
        let mut access = read?;
        let rows = access.members.len() + access.shares.len();
        changes.into_iter().for_each(|change| access.apply(change));
        self.access = Some(access);
        Ok(rows)
    }

    /// Checks whether a change of a higher number was missed. Rights that were not read are not old.
    pub fn are_older_than(&self, grants: u64) -> bool {
        self.access.as_ref().is_some_and(|access| access.grants < grants)
    }

    /// Makes the next sweep read them again, because a change may have been missed.
    pub fn distrust(&mut self) {
        if let Some(access) = &mut self.access {
            access.grants = 0;
        }
    }

    /// Takes a change. It returns `false` if nothing is known that could change.
    pub fn apply(&mut self, change: RightsChange, grants: u64) -> bool {
        if let Some(changes) = &mut self.changes_during_read {
            changes.push(change);
        }
        let Some(access) = &mut self.access else { return false };
        access.apply(change);
        if grants == access.grants + 1 {
            access.grants = grants;
        }
        true
    }
}
