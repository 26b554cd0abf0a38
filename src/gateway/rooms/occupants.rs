//! Who is in rooms: kept as members come and go, told to them, and to whoever may ask.

use std::time::Instant;

use socketioxide::socket::Sid;

use super::{
    Member, Rooms, Shared,
    presence::{Leaving, News},
};
use crate::{
    domain::{
        access::{Action, Caller, Payer, may},
        error::Result,
        id::{LocationId, UserId},
        presence::{Movement, Occupants, Person, PresenceChange},
    },
    gateway::socket::{outbox::body, session::Session},
};

impl Rooms {
    /// A member is another's than before: of a user, a guest's or, if it comes or goes, nobody's.
    pub(super) fn moved(
        &self,
        shared: &Shared,
        from: Option<Option<UserId>>,
        to: Option<Option<UserId>>,
        how: Leaving,
    ) {
        let mut presence = shared.presence.lock();
        if let Some(user) = to {
            presence.enter(user);
        }
        if let Some(user) = from {
            presence.leave(user, how, Instant::now());
        }
        drop(presence);
        self.due.lock().insert(shared.id);
        self.people.woken.notify_one();
    }

    /// A socket has said whose it is: so it is in its rooms.
    pub fn introduced(&self, socket: Sid, session: &Session) {
        for id in session.rooms() {
            let Some(shared) = self.room(id) else { continue };
            let now = session.member();
            let mut room = shared.room.lock();
            let Some(member) = room.member_mut(socket) else { continue };
            let before = std::mem::replace(&mut member.user, now);
            // Still with the lock: it could leave before it is counted in.
            if before != now {
                self.moved(&shared, Some(before), Some(now), Leaving::ForGood);
            }
        }
    }

    /// What is to be told in a room of who has come and gone; `true`: there will be more.
    pub fn news(&self, id: LocationId, now: Instant) -> (Vec<PresenceChange>, bool) {
        let Some(shared) = self.room(id) else { return (Vec::new(), false) };
        let (news, sockets, is_waiting) = shared.presence.lock().news(now);
        let changes = news.into_iter().map(|news| {
            let who = match news {
                News::Count => None,
                News::Moved(user_id, state) => {
                    let user_name = self.people.names(&[user_id]).pop().flatten();
                    Some(Movement { person: Person { user_id, user_name }, state })
                }
            };
            PresenceChange { room: id, who, sockets }
        });
        (changes.collect(), is_waiting)
    }

    /// Tells the members of a room who has come or gone.
    pub fn tell(&self, change: &PresenceChange) {
        let Some(shared) = self.room(change.room) else { return };
        let body = body(change);
        let sender = change.who.as_ref().map(|moved| moved.person.user_id);
        let room = shared.room.lock();
        for Member { socket, outbox, .. } in room.members().filter(|member| member.user.is_some()) {
            outbox.send_room_event(socket, change.room, sender, "presence", body.clone());
        }
    }

    /// Who is in a room, for those who may know.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `rate_limited`, `storage_unavailable`, `internal`.
    pub async fn who_is_in(&self, payer: Payer, caller: &Caller, id: LocationId) -> Result<Occupants> {
        let known = self.room(id).filter(|shared| shared.room.lock().current().is_some());
        let role = known.and_then(|shared| shared.door.lock().role(caller, id));
        let role = match role {
            Some(role) => role,
            // All members are read for those who enter; a look at who is there takes one row.
            None => self.read_role(payer, caller, id).await?,
        };
        may(role, Action::Meet, id)?;
        self.service.limits.check_rows(payer)?;
        let list = self.room(id).map(|shared| shared.presence.lock().list(Instant::now()));
        let (users, sockets) = list.unwrap_or_default();
        self.service.limits.record_rows(payer, users.len());
        let names = self.people.names(&users);
        let users = users.into_iter().zip(names);
        let users = users.map(|(user_id, user_name)| Person { user_id, user_name }).collect();
        Ok(Occupants { room: id, users, sockets })
    }
}
