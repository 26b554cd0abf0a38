//! Acts: the changes that the writer commits, and their results, as values.
//!
//! The other files of this wing carry them out. An act keeps everything it needs to be carried out again, because a
//! transaction may be rolled back and repeated.

use std::{sync::Arc, time::Instant};

use sea_orm::DbErr;

use crate::domain::{
    access::{Action, Caller, Payer, RightsChange, Role},
    error::{Error, Result},
    id::{LocationId, ShareId, UserId},
    location::{Committed, LARGE_BODY, NewLocation, Update},
    time::Timestamp,
};

/// A change that somebody asks for.
#[derive(Debug)]
pub enum Act {
    /// Makes a location.
    Create { new: NewLocation, payer: Option<Payer> },
    /// Moves a location or changes its properties. The body was complete at `received_at`.
    Update { update: Update, payer: Option<Payer>, received_at: Instant },
    /// Removes a location.
    Delete { id: LocationId, by: Caller, payer: Option<Payer> },
    /// Changes who may see or change a location.
    Rights(Rights),
    /// Counts uses of share links.
    CountUses(Vec<ShareUses>),
    /// Stores what users call themselves, each once.
    NameUsers(Vec<(UserId, String)>),
}

/// A request to change the members or share links of a location.
#[derive(Debug)]
pub struct Rights {
    pub location: LocationId,
    pub by: Caller,
    /// The caller who pays if many have to be told; `None`: nobody pays.
    pub payer: Option<Payer>,
    pub request: RightsRequest,
}

/// A change of a location's members or share links that is asked for.
#[derive(Debug)]
pub enum RightsRequest {
    /// Gives a user a role. `is_paid`: the caller's budget for this user was drawn on, so that a repetition is free.
    SetMember {
        user: UserId,
        role: Role,
        is_paid: bool,
    },
    RemoveMember(UserId),
    CreateShare(NewShare),
    RevokeShare(ShareId),
}

/// A share link to be made.
#[derive(Debug)]
pub struct NewShare {
    /// The name its maker gives it.
    pub label: Option<String>,
    /// The time at which it ends.
    pub expires_at: Timestamp,
    /// The hash of its password; `None`: it asks for none.
    pub password_hash: Option<String>,
    /// The hash of the link's secret.
    pub token_hash: [u8; 32],
}

/// Uses of a share link that were not counted yet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShareUses {
    /// The share link.
    pub share: ShareId,
    /// The number of uses that were not counted yet.
    pub count: u64,
    /// The time of the last of them.
    pub last_at: Timestamp,
}

/// The result of an act that was carried out.
#[derive(Clone, Debug)]
pub enum Done {
    /// The location as the act has left it, or as it stood before it was removed.
    Location(Arc<Committed>),
    /// Rights to a location, as they now are.
    Rights {
        change: RightsChange,
        /// The number of such changes of the location so far, this one included.
        grants: u64,
    },
    /// There is nothing that the caller need know.
    Recorded,
}

/// The result of an act, or its refusal.
pub type Outcome = Result<Done>;

/// The reason why an act could not be carried out.
#[derive(Debug)]
pub enum Failure {
    /// The act is refused; the others of its transaction go on.
    Refused(Error),
    /// The database has failed, and with it the whole transaction.
    Database(DbErr),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<DbErr> for Failure {
    fn from(error: DbErr) -> Self {
        Self::Database(error)
    }
}

impl Act {
    /// Bytes of the body it came in.
    pub fn size(&self) -> usize {
        match self {
            Self::Create { new, .. } => new.size,
            Self::Update { update, .. } => update.size,
            _ => 0,
        }
    }

    /// Returns whether it may take long to commit: its body is large, or many people may have to be told of it.
    pub fn is_large(&self) -> bool {
        self.is_alone() || self.size() > LARGE_BODY
    }

    /// Returns whether it has a transaction of its own. A change of rights decides who is told of other changes. Names
    /// and uses of shares concern rows that other servers write too, and must hold up no position.
    pub fn is_alone(&self) -> bool {
        matches!(self, Self::Rights(_) | Self::CountUses(_) | Self::NameUsers(_))
    }

    /// The caller who pays for telling people of it; `None`: nobody pays.
    pub fn payer(&self) -> Option<Payer> {
        match self {
            Self::Create { payer, .. } | Self::Update { payer, .. } | Self::Delete { payer, .. } => *payer,
            Self::Rights(rights) => rights.payer,
            Self::CountUses(_) | Self::NameUsers(_) => None,
        }
    }

    /// The caller in whose share of the queue it waits.
    pub fn queued_for(&self) -> Option<Payer> {
        match self {
            Self::Rights(Rights { by, payer, .. }) => payer.or_else(|| by.account().map(Payer::User)),
            _ => self.payer(),
        }
    }

    /// The location that it changes, and the caller who asks for that; `None`: it changes none that is there.
    pub fn target(&self) -> Option<(LocationId, &Caller)> {
        match self {
            Self::Update { update, .. } => Some((update.id, &update.by)),
            Self::Delete { id, by, .. } => Some((*id, by)),
            Self::Rights(rights) => Some((rights.location, &rights.by)),
            Self::Create { .. } | Self::CountUses(_) | Self::NameUsers(_) => None,
        }
    }
}

impl Rights {
    /// The action that its caller must be allowed: to manage the location, or only to be in it to remove oneself.
    pub fn action(&self) -> Action {
        match self.request {
            RightsRequest::RemoveMember(user) if self.by.account() == Some(user) => Action::Meet,
            _ => Action::Manage,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(by: u64, payer: Option<Payer>, request: RightsRequest) -> Rights {
        let by = Caller::User { id: UserId::new(by).unwrap(), is_admin: false };
        Rights { location: LocationId::new(42).unwrap(), by, payer, request }
    }

    #[test]
    fn members_may_remove_themselves_and_nothing_else() {
        let user = |id| UserId::new(id).unwrap();
        let remove = |by, member| rights(by, None, RightsRequest::RemoveMember(user(member))).action();
        assert_eq!(remove(2, 2), Action::Meet);
        assert_eq!(remove(2, 3), Action::Manage);
        let set = RightsRequest::SetMember { user: user(2), role: Role::Editor, is_paid: false };
        assert_eq!(rights(2, None, set).action(), Action::Manage);
        assert_eq!(rights(2, None, RightsRequest::RevokeShare(ShareId(1))).action(), Action::Manage);
    }

    #[test]
    fn what_nobody_pays_for_waits_in_its_callers_share_of_the_queue_all_the_same() {
        let revoke = |payer| Act::Rights(rights(2, payer, RightsRequest::RevokeShare(ShareId(1))));
        let user = |id| Some(Payer::User(UserId::new(id).unwrap()));
        assert_eq!((revoke(None).payer(), revoke(None).queued_for()), (None, user(2)));
        assert_eq!(revoke(user(3)).queued_for(), user(3));
        assert_eq!(Act::CountUses(Vec::new()).queued_for(), None);
    }
}
