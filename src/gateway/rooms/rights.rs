//! The rights to a location, as far as its room knows them.
//!
//! A room reads rights when the first caller comes whose role depends on them (never in open mode), and is then told of
//! changes. `expel.rs` takes out members whose right has ended.

use crate::domain::{
    access::{Access, Caller, RightsChange, Role},
    error::Result,
    id::LocationId,
    time::Timestamp,
};

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
    pub fn role(&self, caller: &Caller, id: LocationId) -> Result<Option<Role>, NotRead> {
        match caller {
            Caller::Anyone(_) | Caller::User { is_admin: true, .. } => Ok(Some(Role::Owner)),
            _ => {
                let access = self.access.as_ref().ok_or(NotRead)?;
                Ok(access.role(caller, id, Timestamp::now()))
            }
        }
    }

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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::domain::{error::Error, id::UserId};

    fn user(id: u64) -> UserId {
        UserId::new(id).unwrap()
    }

    fn role(rights: &Rights, id: u64) -> Option<Role> {
        let caller = Caller::User { id: user(id), is_admin: false };
        rights.role(&caller, LocationId::new(7).unwrap()).expect("read")
    }

    fn access(grants: u64) -> Access {
        Access { owner: user(1), members: HashMap::new(), shares: HashMap::new(), grants }
    }

    #[test]
    fn before_the_read_only_an_admins_role_is_known() {
        let (rights, id) = (Rights::default(), LocationId::new(7).unwrap());
        let caller = |is_admin| Caller::User { id: user(1), is_admin };
        assert!(matches!(rights.role(&caller(true), id), Ok(Some(Role::Owner))));
        assert!(rights.role(&caller(false), id).is_err());
        assert!(!rights.are_older_than(1));
    }

    #[test]
    fn a_change_during_the_read_is_not_lost() {
        let mut rights = Rights::default();
        rights.begin_read();
        assert!(!rights.apply(RightsChange::Member(user(2), Some(Role::Viewer)), 1));
        assert_eq!(rights.end_read(Ok(access(0))).unwrap(), 0);
        assert_eq!(role(&rights, 2), Some(Role::Viewer));
        assert!(rights.apply(RightsChange::Member(user(2), None), 2));
        assert_eq!(role(&rights, 2), None);
    }

    #[test]
    fn a_read_that_fails_changes_nothing() {
        let mut rights = Rights::default();
        rights.end_read(Ok(access(3))).unwrap();
        rights.begin_read();
        assert!(rights.end_read(Err(Error::database_away())).is_err());
        assert_eq!(role(&rights, 1), Some(Role::Owner));
    }

    #[test]
    fn a_change_that_was_missed_is_noticed() {
        let mut rights = Rights::default();
        rights.end_read(Ok(access(3))).unwrap();
        rights.apply(RightsChange::Member(user(2), Some(Role::Viewer)), 4);
        assert!(!rights.are_older_than(4));
        rights.apply(RightsChange::Member(user(3), Some(Role::Viewer)), 6);
        assert!(rights.are_older_than(6), "the fifth was missed");
        rights.distrust();
        assert!(rights.are_older_than(1));
    }
}
