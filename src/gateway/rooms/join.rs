//! Entering and leaving rooms, and relaying messages in them.
//!
//! Entering takes the room's lock, as every update does, so a member is sent a state and then everything after it.

use std::{collections::HashSet, sync::Arc, time::Instant};

use serde_json::{json, value::RawValue};
use socketioxide::socket::Sid;
use tracing::info;

use super::{
    expel::send_closed,
    presence::Leaving,
    registry::{Entrant, Member, Rooms, SharedRoom},
    rights::{NotRead, Rights},
    room::{Entry, Room, WHOLE_TURN},
};
use crate::{
    domain::{
        access::{Action, Caller, Payer, Role, may},
        error::{Code, Error, Result},
        id::LocationId,
    },
    gateway::socket::{
        outbox::{CHAT, Kind, Subscriber},
        reply::Reply,
        session::Session,
    },
};

impl Rooms {
    /// Lets a socket in: it is sent the ack, then the current state or every update after `since`, then everything
    /// newer.
    ///
    /// # Errors
    /// `rate_limited`, `not_found`, `forbidden`, `storage_unavailable`, `internal`.
    pub async fn join(
        &self,
        subscriber: Subscriber,
        payer: Payer,
        id: LocationId,
        since: Option<u64>,
        reply: &mut Reply,
    ) -> Result<()> {
        let session = &subscriber.session;
        let caller = session.caller();
        session.may_enter(id)?;
        // A guest sees no version from before the share link was created: these count as no longer kept.
        let missed = since.filter(|since| match &caller {
            Caller::Guest(guest) => since + 1 >= guest.from,
            _ => true,
        });
        let (entrant, failure) = self.prepare_join(payer, &caller, id, missed).await?;
        let rights = entrant.room.rights.lock();
        // The right may have ended while the database was read.
        may(rights.role(&caller, id).unwrap_or_default(), Action::See, id)?;
        let mut state = entrant.room.state.lock();
        // If the database could not be asked, a live room goes on with what it knows.
        let entry = state.entry(missed, true);
        let (Entry::Current | Entry::After(_), Some(version)) = (entry, state.head()) else {
            return Err(failure.unwrap_or_else(|| Error::no_location(id)));
        };
        if !session.enter(id) {
            return Ok(());
        }
        let room_name = &id.to_string();
        let recovered = entry != Entry::Current;
        match since {
            None => reply.ack(room_name),
            Some(_) => reply.ack(&json!({"roomName": room_name, "version": version, "recovered": recovered})),
        }
        let (socket, user) = (subscriber.handle.log_name(), session.log_user());
        let recovered = since.map(|_| recovered);
        info!(socket, room = %id, user, since, recovered, version, "join");
        self.enter(&entrant.room, &mut state, subscriber, entry);
        Ok(())
    }

    fn enter(&self, room: &SharedRoom, state: &mut Room<Sid, Member>, subscriber: Subscriber, entry: Entry) {
        let (key, occupant) = (subscriber.handle.id(), subscriber.session.occupant());
        let before = state.member(key).map(|member| member.occupant);
        let member = Member { connection: subscriber.handle.outbox.connection.clone(), subscriber, occupant };
        if !state.enter(key, member, entry, Instant::now()) {
            self.behind.lock().insert(room.id);
        }
        self.metrics.record(state.take_tally());
        if before != Some(occupant) {
            self.change_occupant(room, before, Some(occupant), Leaving::ForGood);
        }
    }

    /// Brings a caller that may see a location to its room, and reads what the room needs to let it in. If the database
    /// could not tell, the error comes along: the room may know enough.
    async fn prepare_join(
        &self,
        payer: Payer,
        caller: &Caller,
        id: LocationId,
        missed: Option<u64>,
    ) -> Result<(Entrant<'_>, Option<Error>)> {
        // This comes before the room is made: for a caller that may not see the location no room is made, and only one
        // row is read. The reads are boxed, because most joins read nothing and need not carry room for them.
        let known = match self.room(id) {
            Some(room) => room.rights.lock().role(caller, id),
            None => Rights::default().role(caller, id),
        };
        let role = match known {
            Ok(role) => role,
            Err(NotRead) => Box::pin(self.read_role(payer, caller, id)).await?,
        };
        may(role, Action::See, id)?;
        // From here on the room is told of updates, so nothing that commits after the read below is missed.
        let entrant = Entrant::new(self, id, missed);
        let room = &entrant.room;
        if room.rights.lock().role(caller, id).is_err() {
            Box::pin(self.read_rights(room, payer, caller)).await?;
        }
        let needs_read = room.state.lock().entry(missed, false) == Entry::NeedsRead;
        let failure =
            if needs_read { Box::pin(self.read_for(payer, room, missed)).await.err() } else { None };
        Ok((entrant, failure))
    }

    /// Takes a socket out of a room. It returns `false` if the socket was not in.
    pub fn leave(&self, socket: Sid, session: &Session, id: LocationId, how: Leaving) -> bool {
        session.leave(id);
        let Some(room) = self.room(id) else { return false };
        let left = room.state.lock().leave(socket);
        if let Some((member, mark)) = &left {
            self.change_occupant(&room, Some(member.occupant), None, how);
            member.subscriber.handle.outbox.record_unread(id, *mark);
        }
        self.remove_if_empty(&room);
        left.is_some()
    }

    /// Ends a session and takes its socket out of every room. It returns those rooms.
    pub fn leave_all(&self, socket: Sid, session: &Session, how: Leaving) -> HashSet<LocationId> {
        let rooms = session.end();
        for id in &rooms {
            self.leave(socket, session, *id, how);
        }
        rooms
    }

    /// Sends a member's message to everyone in the room, the sender included. `payer` pays for it.
    ///
    /// # Errors
    /// `not_in_room`, `forbidden`, `rate_limited`.
    pub fn relay(&self, sender: Sid, payer: Payer, id: LocationId, chat: &Arc<RawValue>) -> Result<()> {
        let not_in_room = || Error::new(Code::NotInRoom, format!("join room {id} before sending to it"));
        let room = self.room(id).ok_or_else(not_in_room)?;
        let state = room.state.lock();
        let occupant = state.member(sender).ok_or_else(not_in_room)?.occupant;
        let role = if occupant.is_some() { Role::Viewer } else { Role::Guest };
        may(Some(role), Action::Meet, id)?;
        // Only a member spends the room's budget, so this comes last.
        let paid = room.presence.lock().paid_sockets();
        self.service.limits.take_chat(payer, id, paid, chat.get().len())?;
        for Member { subscriber, .. } in state.members().filter(|member| member.occupant.is_some()) {
            subscriber.handle.send(Kind::RoomEvent(id, occupant, CHAT), chat.clone());
        }
        Ok(())
    }

    /// Closes the room of a deleted location: each member is taken out, then told.
    pub fn close_deleted(&self, id: LocationId) {
        let Some(room) = self.rooms.lock().remove(&id) else { return };
        let mut state = room.state.lock();
        // The members have a right to what was committed before.
        self.serve(&room, &mut state, WHOLE_TURN);
        let gone = state.close().collect();
        // They had a right to what is still on its way to them, so nobody's connection is ended for it.
        let _ = send_closed(id, gone, |_| "deleted");
    }
}
