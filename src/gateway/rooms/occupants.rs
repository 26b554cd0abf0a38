//! The users that are in rooms, and what requests ask of a live room instead of the database (`gateway/live.rs`).
//!
//! A socket's task announces nobody: it marks the room as due for the announcer (`gateway/announcer.rs`).

use std::{
    collections::HashSet,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use socketioxide::socket::Sid;

use super::{
    presence::{Announcement, Due, Leaving},
    registry::{Member, Rooms, SharedRoom},
};
use crate::{
    domain::{
        access::{Action, Caller, Payer, may},
        error::Result,
        id::{LocationId, UserId},
        presence::{Occupants, PresenceChange},
    },
    gateway::socket::{
        outbox::{Kind, body},
        session::Session,
    },
    service::{Current, RoomSize},
};

impl Rooms {
    /// Records that a member has become another user's, has come (`before` is `None`) or has gone (`now` is `None`). A
    /// guest is the user `None`.
    pub(super) fn change_occupant(
        &self,
        room: &SharedRoom,
        before: Option<Option<UserId>>,
        now: Option<Option<UserId>>,
        how: Leaving,
    ) {
        let mut presence = room.presence.lock();
        if let Some(occupant) = now {
            presence.enter(occupant);
        }
        if let Some(occupant) = before {
            let grace = if how == Leaving::Lost { self.timings.presence_grace } else { Duration::ZERO };
            presence.leave(occupant, Instant::now() + grace);
        }
        drop(presence);
        self.due.lock().insert(room.id);
        self.due_added.notify_one();
    }

    /// Records in a session's rooms that its socket has said which user it belongs to.
    pub fn update_occupant(&self, socket: Sid, session: &Session) {
        for id in session.rooms() {
            let Some(room) = self.room(id) else { continue };
            let now = session.occupant();
            let mut state = room.state.lock();
            let Some(member) = state.member_mut(socket) else { continue };
            let before = std::mem::replace(&mut member.occupant, now);
            // The lock is still held, because the member could leave before it is counted in.
            if before != now {
                self.change_occupant(&room, Some(before), Some(now), Leaving::ForGood);
            }
        }
    }

    pub fn take_due(&self) -> HashSet<LocationId> {
        std::mem::take(&mut *self.due.lock())
    }

    pub fn has_due(&self) -> bool {
        !self.due.lock().is_empty()
    }

    /// Takes the changes in the presence of a room since the last time.
    pub fn take_presence_changes(&self, id: LocationId, now: Instant) -> Vec<PresenceChange> {
        let Some(room) = self.room(id) else { return Vec::new() };
        let Due { announcements, sockets, is_due_again } =
            room.presence.lock().take_due(now, self.timings.presence_count_interval);
        if is_due_again {
            self.due.lock().insert(id);
        }
        let change = |announcement: Announcement| {
            let (who, state) = announcement.map(|(user, state)| (self.directory.person(user), state)).unzip();
            PresenceChange { room: id, who, state, sockets }
        };
        announcements.into_iter().map(change).collect()
    }

    /// Sends a change of presence to the members of its room.
    pub fn send_presence(&self, change: &PresenceChange) {
        let Some(room) = self.room(change.room) else { return };
        let body = body(change);
        let user = change.who.as_ref().map(|person| person.user_id);
        let state = room.state.lock();
        for Member { subscriber, .. } in state.members().filter(|member| member.occupant.is_some()) {
            subscriber.handle.send(Kind::RoomEvent(room.id, user, "presence"), body.clone());
        }
    }

    /// Lists the users in a room, for a caller that may know.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `rate_limited`, `storage_unavailable`, `internal`.
    pub async fn list_occupants(&self, payer: Payer, caller: &Caller, id: LocationId) -> Result<Occupants> {
        let known = match self.room(id).filter(|room| room.state.lock().current().is_some()) {
            Some(room) => room.rights.lock().role(caller, id).ok(),
            None => None,
        };
        let role = match known {
            Some(role) => role,
            // Entering reads all members of the location; for this one row is enough.
            None => self.read_role(payer, caller, id).await?,
        };
        may(role, Action::Meet, id)?;
        self.service.limits.check_rows(payer)?;
        let list = self.room(id).map(|room| room.presence.lock().list(Instant::now()));
        let (users, sockets) = list.unwrap_or_default();
        self.service.limits.record_rows(payer, users.len());
        let users = users.into_iter().map(|user| self.directory.person(user)).collect();
        Ok(Occupants { room: id, users, sockets })
    }

    /// Returns a location as its room was last told of it, or an error if the caller may not see it. `None`: this is
    /// not known.
    pub fn current(&self, caller: &Caller, id: LocationId) -> Option<Result<Current>> {
        let room = self.room(id)?;
        let role = room.rights.lock().role(caller, id).ok()?;
        let state = room.state.lock();
        let current = state.current()?;
        let seen = may(role, Action::See, id);
        Some(seen.map(|()| Current { version: current.version, feature: current.message().to_owned() }))
    }

    /// Returns the number of sockets that a caller pays for when it updates a location, and the bytes of the last
    /// Feature. Every PUT asks this, so it waits for no lock that is held while something is sent.
    pub fn size(&self, caller: &Caller, id: LocationId) -> RoomSize {
        let Some(room) = self.room(id) else { return RoomSize::default() };
        // Rights are locked while somebody enters, who may wait for the lock of the state.
        let role = room.rights.try_lock().and_then(|rights| rights.role(caller, id).ok());
        match role.map(|role| may(role, Action::Move, id)) {
            // The update will be refused, so nobody is sent it.
            Some(Err(_)) => RoomSize::default(),
            _ => RoomSize {
                sockets: room.presence.lock().paid_sockets(),
                update_bytes: room.feature_bytes.load(Ordering::Relaxed),
            },
        }
    }
}
