//! Rights: callers, their roles at a location, and the actions that each role allows. One pure decision that both
//! doors, the writer and the rooms ask for. Where roles are stored is `storage`'s business.

use std::{collections::HashMap, net::IpAddr};

use super::{
    error::{Code, Error, Result},
    id::{LocationId, ShareId, UserId},
    json,
    time::Timestamp,
};

#[derive(Clone, Debug, PartialEq)]
pub enum Caller {
    /// A caller in open mode, who may do everything; the id is only a label.
    Anyone(UserId),
    /// The user of a token.
    User {
        /// The token's `sub`.
        id: UserId,
        is_admin: bool,
    },
    /// The holder of a share link.
    Guest(Guest),
}

/// The caller whose budgets a request or an event draws on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Payer {
    /// The user of a token.
    User(UserId),
    /// An address without one.
    Address(IpAddr),
}

/// The right that a share link gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Guest {
    pub share: ShareId,
    pub location: LocationId,
    /// The location's version when the link was made: none before it may be seen.
    pub from: u64,
    pub expires_at: Timestamp,
}

/// A caller's role at a location. Each role has the rights of those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The holder of a share link.
    Guest,
    /// A member who may see it.
    Viewer,
    /// A member who may move it.
    Editor,
    /// The user who created it, or an admin.
    Owner,
}

impl Role {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::Viewer => "viewer",
            Self::Editor => "editor",
            Self::Owner => "owner",
        }
    }

    /// Parses a role that a member may be given.
    pub fn of_member(name: &str) -> Option<Self> {
        [Self::Viewer, Self::Editor].into_iter().find(|role| role.as_str() == name)
    }

    /// Reads the body `{role}`, the role that a member is given.
    ///
    /// # Errors
    /// `invalid_json`, `invalid_body`, `duplicate_member`, `invalid_member`.
    pub fn from_body(body: &[u8]) -> Result<Self> {
        let role = json::object(body)?.get("role").and_then(|role| Self::of_member(role.as_str()?));
        role.ok_or_else(|| {
            Error::new(Code::InvalidMember, "role must be \"viewer\" or \"editor\"").at("/role")
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// See it and its history, and join its room.
    See,
    /// See who else is there and talk to them: members, presence, `chat`.
    Meet,
    /// Move it, or change its properties.
    Move,
    /// Remove it; say who may see it: members, shares.
    Manage,
}

impl Action {
    /// The lowest role that allows it.
    const fn needs(self) -> Role {
        match self {
            Self::See => Role::Guest,
            Self::Meet => Role::Viewer,
            Self::Move => Role::Editor,
            Self::Manage => Role::Owner,
        }
    }
}

/// Decides whether a role allows an action. A caller who may not even see the location is not told that it exists.
///
/// # Errors
/// `not_found`, `forbidden`.
pub fn may(role: Option<Role>, action: Action, id: LocationId) -> Result<()> {
    match role {
        None => Err(Error::no_location(id)),
        Some(role) if role < action.needs() => {
            Err(Error::new(Code::Forbidden, format!("you may see location {id}, but not do this to it")))
        }
        Some(_) => Ok(()),
    }
}

/// A caller in open mode who gives no user id.
impl Default for Caller {
    fn default() -> Self {
        Self::Anyone(UserId::DEFAULT)
    }
}

impl Caller {
    /// The user who is recorded as the author of a change. Guests change nothing.
    pub fn user(&self) -> UserId {
        match self {
            Self::Anyone(id) | Self::User { id, .. } => *id,
            Self::Guest(_) => UserId::DEFAULT,
        }
    }

    /// The caller who sends a body. In open mode its `userId` says which user that is.
    ///
    /// # Errors
    /// `invalid_user_id`; those of JSON.
    pub fn of_body(known: Option<Self>, body: &[u8]) -> Result<Self> {
        Self::or_labelled(known, || UserId::from_json(json::object(body)?.get("userId")))
    }

    /// The authenticated caller; in open mode the user of the label.
    ///
    /// # Errors
    /// Those of the label.
    pub fn or_labelled(known: Option<Self>, label: impl FnOnce() -> Result<UserId>) -> Result<Self> {
        match known {
            None | Some(Self::Anyone(_)) => label().map(Self::Anyone),
            Some(known) => Ok(known),
        }
    }

    /// The same caller; in open mode with this label.
    pub fn labelled(self, label: UserId) -> Self {
        match self {
            Self::Anyone(_) => Self::Anyone(label),
            known => known,
        }
    }

    /// The owner of a location that this caller creates. A share link is for one location and creates none.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn may_create(&self) -> Result<UserId> {
        match self {
            Self::Anyone(id) | Self::User { id, .. } => Ok(*id),
            Self::Guest(guest) => {
                let detail = format!("the share link is of location {} and makes no other", guest.location);
                Err(Error::new(Code::Forbidden, detail))
            }
        }
    }

    /// Whether the caller has an admin's token, as the backend of an app does.
    pub fn is_admin(&self) -> bool {
        matches!(self, Self::User { is_admin: true, .. })
    }

    /// The user of the caller's token, who can be a member of locations.
    pub fn account(&self) -> Option<UserId> {
        match self {
            Self::User { id, .. } => Some(*id),
            Self::Anyone(_) | Self::Guest(_) => None,
        }
    }

    /// The caller's role at a location, memberships aside.
    pub fn role(&self, id: LocationId, owner: UserId, now: Timestamp) -> Option<Role> {
        match self {
            Self::Anyone(_) | Self::User { is_admin: true, .. } => Some(Role::Owner),
            Self::User { id, .. } if *id == owner => Some(Role::Owner),
            Self::Guest(guest) if guest.location == id && now < guest.expires_at => Some(Role::Guest),
            Self::User { .. } | Self::Guest(_) => None,
        }
    }
}

/// A change of rights, committed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RightsChange {
    /// The new role of a member; `None`: the membership has ended.
    Member(UserId, Option<Role>),
    /// The time at which a new share link ends; `None`: the link was revoked.
    Share(ShareId, Option<Timestamp>),
}

/// The owner, members and share links of one location.
#[derive(Clone, Debug, PartialEq)]
pub struct Access {
    pub owner: UserId,
    /// Viewers and editors.
    pub members: HashMap<UserId, Role>,
    /// The share links that have not been revoked, and when they end.
    pub shares: HashMap<ShareId, Timestamp>,
    /// The number of changes of members and shares so far.
    pub grants: u64,
}

impl Access {
    pub fn apply(&mut self, change: RightsChange) {
        match change {
            RightsChange::Member(user, Some(role)) => drop(self.members.insert(user, role)),
            RightsChange::Member(user, None) => drop(self.members.remove(&user)),
            RightsChange::Share(share, Some(expires_at)) => drop(self.shares.insert(share, expires_at)),
            RightsChange::Share(share, None) => drop(self.shares.remove(&share)),
        }
    }

    pub fn role(&self, caller: &Caller, id: LocationId, now: Timestamp) -> Option<Role> {
        match caller {
            Caller::Guest(guest) if !self.shares.contains_key(&guest.share) => None,
            Caller::User { id: user, .. } => {
                caller.role(id, self.owner, now).or_else(|| self.members.get(user).copied())
            }
            _ => caller.role(id, self.owner, now),
        }
    }
}

#[cfg(test)]
mod tests;
