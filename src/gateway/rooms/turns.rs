//! Sending committed versions to the members of rooms, a turn at a time.
//!
//! A room that is not done after its turn waits for the next one, behind the others that wait. So a room of thousands
//! holds up a small one for no longer than a turn. Who is owed what is decided in `rooms/room`.

use std::{
    io::IoSlice,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use socketioxide::socket::Sid;
use tracing::info;

use super::{
    Member, Rooms, Shared,
    presence::Leaving,
    room::{Room, Served, Sink, TURN, Turn, Update, WHOLE_TURN},
};
use crate::{
    domain::{
        id::LocationId,
        location::{Committed, Location},
    },
    gateway::{
        socket::{outbox, session::log_name},
        wire::{connection::SendOutcome, end_reason::EndReason},
    },
};

impl Sink for Member {
    fn send(&self, updates: &[Update], now: Instant) -> Option<u64> {
        let rest = |number: usize, from: usize| updates[number].frame().slice(from..);
        let sent = match updates {
            [update] => self.connection.send(&[IoSlice::new(update.frame())], rest, now),
            updates => {
                let frames: Vec<_> = updates.iter().map(|update| IoSlice::new(update.frame())).collect();
                self.connection.send(&frames, rest, now)
            }
        };
        match sent {
            SendOutcome::Sent(mark) => Some(mark),
            SendOutcome::Closed => None,
            SendOutcome::ByLibrary => self.outbox.send_positions(&self.socket, updates),
        }
    }

    fn has_room(&self) -> bool {
        self.outbox.has_room()
    }
}

impl Rooms {
    /// Sends committed versions of a location to its room. `true`: the room has begun to lack versions before
    /// them, which [`Rooms::fill`] reads.
    pub fn updated(&self, id: LocationId, versions: &[Arc<Committed>]) -> bool {
        let Some(shared) = self.room(id) else { return false };
        // Before the lock: joins need not wait for it.
        let updates: Vec<_> = versions.iter().map(|location| (update(location), location.came_at)).collect();
        let mut room = shared.room.lock();
        let lacked = room.lacks();
        if room.is_full() {
            self.serve(&shared, &mut room, WHOLE_TURN);
        }
        if let Some(newest) = versions.last() {
            shared.bytes.store(newest.feature().len(), Ordering::Relaxed);
        }
        room.hear(updates);
        self.serve(&shared, &mut room, TURN);
        room.lacks() && !lacked
    }

    /// Gives a room a turn; if that is not enough, it waits for another.
    pub(super) fn serve(&self, shared: &Arc<Shared>, room: &mut Room<Sid, Member>, turn: Turn) {
        let Served { stalled, is_done, is_behind, came_at } = room.serve(Instant::now(), turn);
        self.counts.sent(room.tally());
        let now = Instant::now();
        came_at.into_iter().for_each(|came_at| self.counts.sent_after(now - came_at));
        for Member { socket, outbox, session, user, .. } in stalled {
            self.moved(shared, Some(user), None, Leaving::Lost);
            let (socket, room, user) = (log_name(&socket), shared.id, session.name());
            info!(socket, %room, %user, "too slow for what it missed: it is to connect again");
            outbox.abort(EndReason::StalledInReplay);
        }
        if !is_done {
            if !shared.has_turn.swap(true, Ordering::Relaxed) {
                self.unfinished.lock().push_back(shared.clone());
                self.turns.notify_one();
            }
        } else if is_behind {
            self.behind.lock().insert(shared.id);
        }
    }

    /// Gives the room that has waited longest its turn. `false`: none waits.
    pub fn take_turn(&self) -> bool {
        let Some(shared) = self.unfinished.lock().pop_front() else { return false };
        let done = self.tasks.forwarder.catch(|| {
            let mut room = shared.room.lock();
            shared.has_turn.store(false, Ordering::Relaxed);
            self.serve(&shared, &mut room, TURN);
        });
        match done {
            Some(()) => self.drop_if_empty(&shared),
            None => self.give_up(shared.id),
        }
        true
    }

    /// Does a room wait for its turn?
    pub fn has_turns(&self) -> bool {
        !self.unfinished.lock().is_empty()
    }

    /// Sends members what they could not be sent before; returns the rooms that lack versions themselves.
    pub fn catch_up(&self) -> Vec<LocationId> {
        // First: what waits there was said before.
        self.tasks.forwarder.catch(|| outbox::flush(&self.blocked));
        let behind = std::mem::take(&mut *self.behind.lock());
        let mut lacking = Vec::new();
        for id in behind {
            match self.tasks.forwarder.catch(|| self.catch_up_room(id)) {
                Some(true) => lacking.push(id),
                Some(false) => {}
                None => self.give_up(id),
            }
        }
        lacking
    }

    /// The same for one room. `true`: it lacks versions itself.
    fn catch_up_room(&self, id: LocationId) -> bool {
        let Some(shared) = self.room(id) else { return false };
        let lacks = {
            let mut room = shared.room.lock();
            room.begin_pass();
            self.serve(&shared, &mut room, TURN);
            room.lacks()
        };
        self.drop_if_empty(&shared);
        lacks
    }
}

/// A version as its room is sent it.
pub(super) fn update(location: &Committed) -> Update {
    let Location { id, version, updated_by, .. } = &**location;
    let before = format!(r#"{{"userId":{updated_by},"message":"#);
    let after = format!(r#","roomName":"{id}","version":{version}}}"#);
    Update::new(*version, [&before, location.feature(), &after])
}
