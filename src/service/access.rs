//! Authentication and rights: finds out who a caller is, and whether the caller may do something to a location.
//!
//! The decisions themselves are pure and stand in `domain/access`; here what they need is verified and read.

use std::net::IpAddr;

use super::{limits::payer, shares, state::Service};
use crate::domain::{
    access::{Access, Action, Caller, Payer, Role, may},
    error::{Code, Error, Result},
    id::{LocationId, UserId},
    time::Timestamp,
    token::Token,
};

/// The credentials that a caller shows, the same at both doors.
#[derive(Default)]
pub struct Credentials {
    /// A JWT.
    pub token: Option<String>,
    /// The secret of a share link.
    pub share: Option<String>,
    /// The password of the share link.
    pub password: Option<String>,
}

/// An authenticated caller.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// The caller, as decisions about rights know it.
    pub caller: Caller,
    /// The user's name.
    pub name: Option<String>,
    /// The time at which the credentials expire; `None`: never, in open mode.
    pub expires_at: Option<Timestamp>,
}

impl Identity {
    /// The identity of a caller in open mode, who only says which user it is.
    pub fn label(user: UserId) -> Self {
        Self { caller: Caller::Anyone(user), name: None, expires_at: None }
    }
}

impl Service {
    /// Whether the server is in open mode, where nobody has to show credentials.
    pub fn is_open(&self) -> bool {
        self.keys.is_none()
    }

    /// Authenticates a caller and takes the request from its budget. In open mode the result is `None`, and nobody
    /// looks at the credentials.
    ///
    /// # Errors
    /// `unauthorized`, `invalid_token`, `token_expired`, `invalid_share`, `share_expired`,
    /// `invalid_share_password`, `rate_limited`, `storage_unavailable`, `internal`.
    pub async fn identify(
        &self,
        from: IpAddr,
        shown: impl FnOnce() -> Result<Credentials>,
    ) -> Result<Option<Identity>> {
        if self.is_open() {
            return Ok(None);
        }
        let identity = match shown() {
            Ok(Credentials { token: Some(token), .. }) => self.verify_token(&token),
            Ok(Credentials { share: Some(share), password, .. }) => {
                self.limits.take_request(payer(None, from))?;
                self.guest(from, &share, password.as_deref()).await
            }
            Ok(_) => Err(Error::new(Code::Unauthorized, "a token or a share link is needed")),
            Err(error) => Err(error),
        };
        match &identity {
            Ok(Identity { caller: Caller::User { id, .. }, .. }) => {
                self.limits.take_request(Payer::User(*id))?
            }
            // It was good once, and who has it is to learn that it ended.
            Err(Error { code: Code::TokenExpired, .. }) => self.limits.take_request(payer(None, from))?,
            // Only after the token was looked at: others at this address may have a good one.
            Err(error) if error.code.is_of_credentials() => self.limits.take_refusal(from)?,
            _ => {}
        }
        identity.map(Some)
    }

    /// Verifies a token and records the name that it gives its user.
    ///
    /// # Errors
    /// `invalid_token`, `token_expired`.
    pub fn verify_token(&self, token: &str) -> Result<Identity> {
        let keys = self
            .keys
            .as_ref()
            .ok_or_else(|| Error::new(Code::InvalidToken, "this server has no keys: it is in open mode"))?;
        let Token { user: id, name, is_admin, expires_at } = keys.verify(token, Timestamp::now())?;
        if let Some(name) = &name
            && self.names.record(id, name)
            && let Some(live) = self.live_rooms()
        {
            live.rename(id);
        }
        Ok(Identity { caller: Caller::User { id, is_admin }, name, expires_at: Some(expires_at) })
    }

    async fn guest(&self, from: IpAddr, share: &str, password: Option<&str>) -> Result<Identity> {
        let invalid = || Error::new(Code::InvalidShare, "there is no such share link");
        let found = self.store.share_by_hash(&shares::hash(share)).await?.ok_or_else(invalid)?;
        if found.guest.expires_at <= Timestamp::now() {
            return Err(Error::new(Code::ShareExpired, "the share link has ended"));
        }
        if let Some(hash) = &found.password_hash {
            self.passwords
                .check(password, hash, || self.limits.take_password_attempt(found.guest.share, from))
                .await?;
        }
        self.write_behind.record_use(found.guest.share);
        let expires_at = Some(found.guest.expires_at);
        Ok(Identity { caller: Caller::Guest(found.guest), name: None, expires_at })
    }

    /// Reads a caller's role at a location, by one indexed row; `None`: the caller may not see it, or there is none.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn role(&self, by: &Caller, id: LocationId) -> Result<Option<Role>> {
        let now = Timestamp::now();
        match by {
            Caller::Guest(guest) if guest.location != id => Ok(None),
            Caller::Guest(guest) => {
                let is_there = self.store.is_shared(guest).await?;
                Ok(is_there.then(|| by.role(id, UserId::DEFAULT, now)).flatten())
            }
            Caller::Anyone(user) | Caller::User { id: user, .. } => {
                let standing = self.store.standing(id, *user).await?;
                Ok(standing.and_then(|standing| by.role(id, standing.owner, now).or(standing.member)))
            }
        }
    }

    /// Reads the owner, members and share links of a location.
    ///
    /// # Errors
    /// `not_found`, `storage_unavailable`, `internal`.
    pub async fn access(&self, id: LocationId) -> Result<Access> {
        self.store.access(id).await?.ok_or_else(|| Error::no_location(id))
    }

    /// Checks that a caller may do this to a location. Reads no more than the decision takes.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `storage_unavailable`, `internal`.
    pub(super) async fn permit(&self, by: &Caller, id: LocationId, action: Action) -> Result<()> {
        self.look_up(by, id, action).await.map(drop)
    }

    /// The same check; also returns the newest version of the location, where the same row has it.
    ///
    /// # Errors
    /// As [`Service::permit`].
    pub(super) async fn look_up(&self, by: &Caller, id: LocationId, action: Action) -> Result<Option<u64>> {
        let mut version = None;
        let role = match by {
            // Whether it is there is said by what comes next.
            Caller::Anyone(_) | Caller::User { is_admin: true, .. } => Some(Role::Owner),
            // Looked up a moment ago.
            Caller::Guest(guest) => (guest.location == id).then_some(Role::Guest),
            Caller::User { id: user, .. } => match self.store.standing(id, *user).await? {
                Some(standing) => {
                    version = Some(standing.version);
                    by.role(id, standing.owner, Timestamp::now()).or(standing.member)
                }
                None => None,
            },
        };
        may(role, action, id).map(|()| version)
    }
}
