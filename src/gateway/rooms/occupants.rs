//! The users that are in rooms: kept as members come and go, announced to the members, and listed for whoever may ask.
//!
//! A socket's task announces nothing. It marks the room as due, and the announcer (`gateway/announcer.rs`) comes at a
//! pace. What is to be announced is decided in `presence.rs`.

use std::{collections::HashSet, time::Instant};

use socketioxide::socket::Sid;

use super::{
    presence::{Announcement, Due, Leaving},
    registry::{Member, Rooms, SharedRoom},
};
use crate::{
    domain::{
        access::{Action, Caller, Payer, may},
        error::Result,
        id::LocationId,
        presence::{Movement, Occupants, Person, PresenceChange},
    },
    gateway::socket::{
        outbox::body,
        session::{Occupant, Session},
    },
};

impl Rooms {
    /// Records that a member has become another user's, has come (`before` is `None`) or has gone (`now` is `None`).
    pub(super) fn change_occupant(
        &self,
        room: &SharedRoom,
        before: Option<Occupant>,
        now: Option<Occupant>,
        how: Leaving,
    ) {
        let mut presence = room.presence.lock();
        if let Some(occupant) = now {
            presence.enter(occupant);
        }
        if let Some(occupant) = before {
            presence.leave(occupant, how, Instant::now());
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

    /// Waits until presence is to be announced in some room.
    pub async fn wait_for_due(&self) {
        self.due_added.notified().await;
    }

    /// Takes the rooms whose presence is to be announced.
    pub fn take_due(&self) -> HashSet<LocationId> {
        std::mem::take(&mut *self.due.lock())
    }

    /// Checks whether the presence of some room is to be announced.
    pub fn has_due(&self) -> bool {
        !self.due.lock().is_empty()
    }

    /// Takes the changes in the presence of a room since the last time. The room stays due if there will be more even
    /// if nothing else happens.
    pub fn take_presence_changes(&self, id: LocationId, now: Instant) -> Vec<PresenceChange> {
        let Some(room) = self.room(id) else { return Vec::new() };
        let Due { announcements, sockets, is_due_again } = room.presence.lock().take_due(now);
        if is_due_again {
            self.due.lock().insert(id);
        }
        let change = |announcement| {
            let who = match announcement {
                Announcement::Count => None,
                Announcement::Moved(user_id, state) => {
                    let user_name = self.directory.names(&[user_id]).pop().flatten();
                    Some(Movement { person: Person { user_id, user_name }, state })
                }
            };
            PresenceChange { room: id, who, sockets }
        };
        announcements.into_iter().map(change).collect()
    }

    /// Sends a change of presence to the members of its room.
    pub fn send_presence(&self, change: &PresenceChange) {
        let Some(room) = self.room(change.room) else { return };
        let body = body(change);
        let user = change.who.as_ref().map(|moved| moved.person.user_id);
        let state = room.state.lock();
        for Member { subscriber, .. } in state.members().filter(|member| member.occupant != Occupant::Guest) {
            subscriber.handle.send_room_event(room.id, user, "presence", body.clone());
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
        let names = self.directory.names(&users);
        let users = users.into_iter().zip(names);
        let users = users.map(|(user_id, user_name)| Person { user_id, user_name }).collect();
        Ok(Occupants { room: id, users, sockets })
    }
}
