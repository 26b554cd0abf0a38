//! Who may do what: one pure decision, asked by both doors.

use std::{collections::HashMap, net::IpAddr};

use super::{
    error::{Code, Error, Result},
    id::{LocationId, ShareId, UserId},
    json,
    time::Timestamp,
};

/// Who is calling.
#[derive(Clone, Debug, PartialEq)]
pub enum Caller {
    /// Open mode: everybody may do everything, and the id is only a label.
    Anyone(UserId),
    /// Whom a token names.
    User {
        /// The token's `sub`.
        id: UserId,
        /// The token's `role` is `admin`.
        is_admin: bool,
    },
    /// Whoever has a share link.
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

/// What a share link gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Guest {
    /// Of the share.
    pub share: ShareId,
    /// The one location it is of.
    pub location: LocationId,
    /// The location's version when the link was made: none before it may be seen.
    pub from: u64,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// What somebody is to a location, each having the rights of those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Has a share link.
    Guest,
    /// A member who may look.
    Viewer,
    /// A member who may move it.
    Editor,
    /// Made it, or is an admin.
    Owner,
}

impl Role {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::Viewer => "viewer",
            Self::Editor => "editor",
            Self::Owner => "owner",
        }
    }

    /// What a member may be made.
    pub fn of_member(name: &str) -> Option<Self> {
        [Self::Viewer, Self::Editor].into_iter().find(|role| role.as_str() == name)
    }

    /// Reads `{role}`, what a member is to be.
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

/// What somebody wants to do with a location.
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
    /// The least role that may.
    const fn needs(self) -> Role {
        match self {
            Self::See => Role::Guest,
            Self::Meet => Role::Viewer,
            Self::Move => Role::Editor,
            Self::Manage => Role::Owner,
        }
    }
}

/// May somebody do this to a location? Who may not even see it learns nothing of it.
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

/// Whoever reaches a server in open mode and does not say who it is.
impl Default for Caller {
    fn default() -> Self {
        Self::Anyone(UserId::DEFAULT)
    }
}

impl Caller {
    /// Who is written down as having done it. Guests do nothing that is.
    pub fn user(&self) -> UserId {
        match self {
            Self::Anyone(id) | Self::User { id, .. } => *id,
            Self::Guest(_) => UserId::DEFAULT,
        }
    }

    /// Who sends a body: in open mode, whoever its `userId` says.
    ///
    /// # Errors
    /// `invalid_user_id`; those of JSON.
    pub fn of_body(known: Option<Self>, body: &[u8]) -> Result<Self> {
        Self::or_labelled(known, || UserId::from_json(json::object(body)?.get("userId")))
    }

    /// Who is known to be calling; in open mode, whoever the label says.
    ///
    /// # Errors
    /// Those of the label.
    pub fn or_labelled(known: Option<Self>, label: impl FnOnce() -> Result<UserId>) -> Result<Self> {
        match known {
            None | Some(Self::Anyone(_)) => label().map(Self::Anyone),
            Some(known) => Ok(known),
        }
    }

    /// The same, in open mode under this label.
    pub fn labelled(self, label: UserId) -> Self {
        match self {
            Self::Anyone(_) => Self::Anyone(label),
            known => known,
        }
    }

    /// Whose a location is that this caller makes. A share link is of one that is there.
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

    /// Whether this is an admin's token, as the backend of an app has.
    pub fn is_admin(&self) -> bool {
        matches!(self, Self::User { is_admin: true, .. })
    }

    /// Whom a token names: who can be a member.
    pub fn account(&self) -> Option<UserId> {
        match self {
            Self::User { id, .. } => Some(*id),
            Self::Anyone(_) | Self::Guest(_) => None,
        }
    }

    /// What the caller is to a location without being a member of it.
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
    /// What a member now is; `None`: none any more.
    Member(UserId, Option<Role>),
    /// When a share ends; `None`: it has been revoked.
    Share(ShareId, Option<Timestamp>),
}

/// Everybody who has to do with one location.
#[derive(Clone, Debug, PartialEq)]
pub struct Access {
    /// Who made it.
    pub owner: UserId,
    /// Viewers and editors.
    pub members: HashMap<UserId, Role>,
    /// Links that have not been revoked, and when they end.
    pub shares: HashMap<ShareId, Timestamp>,
    /// Counts the changes of members and shares.
    pub grants: u64,
}

impl Access {
    /// Takes over a change.
    pub fn apply(&mut self, change: RightsChange) {
        match change {
            RightsChange::Member(user, Some(role)) => drop(self.members.insert(user, role)),
            RightsChange::Member(user, None) => drop(self.members.remove(&user)),
            RightsChange::Share(share, Some(expires_at)) => drop(self.shares.insert(share, expires_at)),
            RightsChange::Share(share, None) => drop(self.shares.remove(&share)),
        }
    }

    /// What the caller is to the location.
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
