//! Committed versions on their way to the members of rooms: sent one turn at a time, and read where a room lacks some.
//!
//! A room that is not done after its turn waits behind the others, so a room of thousands holds up a small one for no
//! longer than a turn. `room/` decides what each member is owed. A room reads once at a time, for all who wait.

use std::{
    io::IoSlice,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use socketioxide::socket::Sid;
use tokio::time::sleep;
use tracing::{debug, info};

use super::{
    presence::Leaving,
    registry::{Entrant, LastRead, Member, Rooms, SharedRoom},
    room::{Entry, MAX_MISSED, Room, Served, Sink, TURN, Turn, Update, WHOLE_TURN},
};
use crate::{
    domain::{
        access::Payer,
        error::{Code, Error, Result},
        id::LocationId,
        location::{Committed, Location},
    },
    gateway::wire::{connection::SendOutcome, end_reason::EndReason},
};

/// The pause after a read that did not bring what the room lacks.
const RETRY_DELAY: Duration = Duration::from_secs(1);

impl Sink for Member {
    fn send(&self, updates: &[Update], now: Instant) -> Option<u64> {
        let rest = |number: usize, from: usize| updates[number].frame.slice(from..);
        let sent = match updates {
            [update] => self.connection.send(&[IoSlice::new(&update.frame)], rest, now),
            updates => {
                let frames: Vec<_> = updates.iter().map(|update| IoSlice::new(&update.frame)).collect();
                self.connection.send(&frames, rest, now)
            }
        };
        match sent {
            SendOutcome::Sent(mark) => Some(mark),
            SendOutcome::Closed => None,
            SendOutcome::ByLibrary => self.subscriber.handle.send_positions(updates.iter().map(Update::body)),
        }
    }

    fn has_room(&self) -> bool {
        self.connection.has_room()
    }
}

impl Rooms {
    /// Sends committed versions of a location to its room. It returns `true` if the room has begun to lack versions
    /// before them, which [`Rooms::backfill`] reads.
    pub fn send_updates(&self, id: LocationId, versions: &[Arc<Committed>]) -> bool {
        let Some(room) = self.room(id) else { return false };
        // The frames are made before the lock is taken, so joins need not wait for that.
        let updates: Vec<_> =
            versions.iter().map(|location| (update(location), location.received_at)).collect();
        let mut state = room.state.lock();
        let had_gap = state.has_gap();
        if state.is_full() {
            self.serve(&room, &mut state, WHOLE_TURN);
        }
        if let Some(newest) = versions.last() {
            room.feature_bytes.store(newest.feature().len(), Ordering::Relaxed);
        }
        state.on_updates(updates);
        self.serve(&room, &mut state, TURN);
        state.has_gap() && !had_gap
    }

    /// Gives a room a turn. A room that needs more waits for its next turn.
    pub(super) fn serve(&self, room: &Arc<SharedRoom>, state: &mut Room<Sid, Member>, turn: Turn) {
        let Served { stalled, is_done, is_behind, received_at } = state.serve(Instant::now(), turn);
        self.metrics.record(state.take_tally());
        let now = Instant::now();
        received_at.into_iter().for_each(|received_at| self.metrics.put_to_send.observe(now - received_at));
        for Member { subscriber, occupant, .. } in stalled {
            self.change_occupant(room, Some(occupant), None, Leaving::Lost);
            let (socket, room, user) = (subscriber.handle.log_name(), room.id, subscriber.session.log_user());
            info!(socket, %room, %user, "a socket stalled inside a replay and has to reconnect");
            subscriber.handle.outbox.abort(EndReason::StalledInReplay);
        }
        if !is_done {
            if !room.has_turn.swap(true, Ordering::Relaxed) {
                self.unfinished.lock().push_back(room.clone());
                self.turn_needed.notify_one();
            }
        } else if is_behind {
            self.behind.lock().insert(room.id);
        }
    }

    /// Gives the room that has waited longest its turn, if one waits.
    pub fn take_turn(&self) {
        let Some(room) = self.unfinished.lock().pop_front() else { return };
        let served = self.event_loop.catch(|| {
            let mut state = room.state.lock();
            room.has_turn.store(false, Ordering::Relaxed);
            self.serve(&room, &mut state, TURN);
        });
        match served {
            Some(()) => self.remove_if_empty(&room),
            None => self.give_up(room.id),
        }
    }

    pub fn has_unfinished(&self) -> bool {
        !self.unfinished.lock().is_empty()
    }

    /// Sends members what they could not be sent before. It returns the rooms that lack versions themselves.
    pub fn catch_up(&self) -> Vec<LocationId> {
        let behind = std::mem::take(&mut *self.behind.lock());
        let mut with_gap = Vec::new();
        for id in behind {
            match self.event_loop.catch(|| self.catch_up_room(id)) {
                Some(true) => with_gap.push(id),
                Some(false) => {}
                None => self.give_up(id),
            }
        }
        with_gap
    }

    /// Sends the members of one room what they could not be sent before. It returns `true` if the room lacks versions
    /// itself.
    fn catch_up_room(&self, id: LocationId) -> bool {
        let Some(room) = self.room(id) else { return false };
        let has_gap = {
            let mut state = room.state.lock();
            state.begin_pass();
            self.serve(&room, &mut state, TURN);
            state.has_gap()
        };
        self.remove_if_empty(&room);
        has_gap
    }

    /// Reads the versions that a room lacks, unless another task is doing so.
    pub async fn backfill(&self, id: LocationId) {
        let Some(entrant) = Entrant::of_existing(self, id) else { return };
        let room = &entrant.room;
        let Ok(backfilling) = room.backfilling.try_lock() else { return };
        loop {
            let before = room.state.lock().head();
            let read = self.read_missing(room, None).await;
            let state = room.state.lock();
            if !state.has_gap() {
                // Under the lock of the state: a task that finds a gap after this must be able to begin.
                drop(backfilling);
                return;
            }
            if read.is_err() || state.head() == before {
                break;
            }
        }
        sleep(RETRY_DELAY).await;
        drop(backfilling);
        self.behind.lock().insert(id);
    }

    /// Reads for a caller that joins. Only some of its reads run at once, and it pays for them.
    pub(super) async fn read_for(
        &self,
        payer: Payer,
        room: &Arc<SharedRoom>,
        since: Option<u64>,
    ) -> Result<()> {
        self.service.limits.check_rows(payer)?;
        let _share = self.reads.share(payer).await?;
        let rows = self.read_missing(room, since).await?;
        // The newest version is part of the price of every join, so it is not paid for again.
        self.service.limits.record_rows(payer, rows.saturating_sub(1));
        Ok(())
    }

    /// Reads what a room lacks or what somebody who has `since` needs, unless that was read in the meantime: one read
    /// serves all who wait for it. It returns the number of rows that were read.
    pub(super) async fn read_missing(&self, room: &Arc<SharedRoom>, since: Option<u64>) -> Result<usize> {
        let waiting_since = Instant::now();
        let mut last_read = room.last_read.lock().await;
        let began_at = Instant::now();
        let from = {
            let state = room.state.lock();
            if state.entry(since, false) != Entry::NeedsRead && !state.has_gap() {
                return Ok(0);
            }
            state.read_from(began_at)
        };
        // A read that began after this caller came was for it too: the room knew of all who waited.
        match &*last_read {
            Some(read) if read.began_at >= waiting_since && read.has_succeeded => return Ok(0),
            Some(read) if read.began_at >= waiting_since => return Err(Error::database_away()),
            _ => {}
        }
        let read = self.read_versions(room, from).await;
        match &read {
            Err(error) if error.code == Code::NotFound => self.close_deleted(room.id),
            _ => *last_read = Some(LastRead { began_at, has_succeeded: read.is_ok() }),
        }
        read
    }

    /// Reads the versions from `from` on, or only the newest, and gives them to the room.
    async fn read_versions(&self, room: &Arc<SharedRoom>, from: Option<u64>) -> Result<usize> {
        let id = room.id;
        let run: Vec<_> = {
            let _permit = self.reads.permit().await?;
            let run = self.service.newest(id, from, MAX_MISSED + 1).await?;
            debug!(room = %id, from, versions = run.len(), "versions were read for a room");
            run.into_iter().map(|location| update(&location.into())).collect()
        };
        let rows = run.len();
        if let Some(newest) = run.last() {
            room.feature_bytes.store(newest.message().len(), Ordering::Relaxed);
        }
        let mut state = room.state.lock();
        state.on_read(run, Instant::now());
        self.serve(room, &mut state, TURN);
        if state.has_gap() {
            self.behind.lock().insert(id);
        }
        Ok(rows)
    }
}

/// Makes a committed version into what its room is sent.
fn update(location: &Committed) -> Update {
    let Location { id, version, updated_by, .. } = &**location;
    let before = format!(r#"{{"userId":{updated_by},"message":"#);
    let after = format!(r#","roomName":"{id}","version":{version}}}"#);
    Update::new(*version, [&before, location.feature(), &after])
}
