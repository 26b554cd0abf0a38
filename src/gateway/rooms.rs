//! All rooms: who enters which, and what they learn from events and from the database.
//!
//! A room exists here while somebody is in it or entering it. Entering takes the room's lock, as does every
//! update, so a member is sent where it begins and then everything after it: no hole, no repeat. What a room
//! lacks is read from the database, one read a room at a time, which serves all who wait for it.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::value::RawValue;
use socketioxide::{extract::SocketRef, socket::Sid};
use tokio::{sync::Semaphore, time::sleep};
use tracing::{debug, info};

use super::{
    messages::Client,
    outlet::{self, Blocked, Outlet, body},
    reply::Reply,
    room::{Entry, MAX_MISSED, Room, Sink, Update},
    session::{Session, log_name},
};
use crate::{
    domain::{
        error::{Code, Error, Result},
        id::LocationId,
        location::Location,
    },
    service::{Current, Live, Service},
};

/// Reads of all rooms that may run at once; requests have the database's other connections.
const READS: usize = 8;

/// How often live rooms are compared with the database: after at most two of these what was lost is noticed.
const SWEEP: Duration = Duration::from_millis(1_500);
/// Rooms of one read of the sweep.
const SWEPT_TOGETHER: usize = 1_024;

/// After a read that did not bring what a room lacks.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// All rooms of this process.
pub struct Rooms {
    service: Service,
    /// Written when a room's first member enters or its last leaves. Taken before a room's lock, and
    /// never held while anything is sent.
    rooms: Mutex<HashMap<LocationId, Arc<Shared>>>,
    /// Rooms that owe their members something, or lack versions themselves: tried again now and then.
    behind: Mutex<HashSet<LocationId>>,
    /// A permit a read.
    reads: Semaphore,
    /// Sockets that something other than a position waits for.
    pub blocked: Arc<Blocked>,
}

/// A room that many tasks use.
struct Shared {
    id: LocationId,
    /// Written by entering, leaving and every update; held while an update is queued to its members.
    room: Mutex<Room<Sid, Member>>,
    /// Whoever has it reads from the database, for all who wait for it. When the last read began, and whether
    /// it was answered.
    turn: tokio::sync::Mutex<Option<(Instant, bool)>>,
    /// Whoever has it sees to it that the room gets what it lacks.
    filling: tokio::sync::Mutex<()>,
}

impl Shared {
    fn new(id: LocationId) -> Self {
        Self { id, room: Mutex::default(), turn: Default::default(), filling: Default::default() }
    }
}

struct Member {
    socket: SocketRef,
    outlet: Arc<Outlet>,
    session: Arc<Session>,
}

impl Sink for Member {
    fn send(&self, update: &Update) -> bool {
        self.outlet.position(&self.socket, &update.chat)
    }
}

/// The ack of a `join_room` with `since`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Recovery<'a> {
    room_name: &'a str,
    version: u64,
    recovered: bool,
}

/// The body of `room_closed`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RoomClosed<'a> {
    room_name: &'a str,
    reason: &'static str,
}

impl Rooms {
    /// No rooms yet; what they need to know comes from `service`.
    pub fn new(service: Service) -> Self {
        Self {
            service,
            rooms: Mutex::default(),
            behind: Mutex::default(),
            reads: Semaphore::new(READS),
            blocked: Arc::default(),
        }
    }

    /// Lets a socket in: ack, then the current state or every update after `since`, then everything newer.
    ///
    /// # Errors
    /// `not_found`, `storage_unavailable`, `internal`.
    pub async fn join(
        &self,
        client: &Client,
        socket: &SocketRef,
        id: LocationId,
        since: Option<u64>,
        reply: &mut Reply,
    ) -> Result<()> {
        let Client { session, outlet, .. } = client;
        // From here on the room hears of updates, so what commits after the read below is not missed.
        let visit = Visit::new(self, id, since);
        let shared = &visit.shared;
        let is_known = shared.room.lock().entry(since, false) != Entry::Unknown;
        // Boxed: a join that reads nothing, which is most of them, is not to carry the room for it.
        let failure = if is_known { None } else { Box::pin(self.ask(shared, since)).await.err() };
        let mut room = shared.room.lock();
        // If the database could not be asked, a live room goes on with what it knows.
        let entry = room.entry(since, true);
        let (Entry::Current | Entry::After(_), Some(version)) = (entry, room.head()) else {
            return Err(failure.unwrap_or_else(|| Error::no_location(id)));
        };
        if !session.enter(id) {
            return Ok(());
        }
        let name = id.to_string();
        let recovered = entry != Entry::Current;
        match since {
            None => reply.ack(&name),
            Some(_) => reply.ack(&Recovery { room_name: &name, version, recovered }),
        }
        let member = Member { socket: socket.clone(), outlet: outlet.clone(), session: session.clone() };
        if !room.enter(socket.id, member, entry, Instant::now()) {
            self.behind.lock().insert(id);
        }
        let recovered = since.map(|_| recovered);
        info!(socket = log_name(socket), room = %id, user = %session.user(), since, recovered, version, "join");
        Ok(())
    }

    /// Takes a socket out; `false` if it was not in.
    pub fn leave(&self, socket: Sid, session: &Session, id: LocationId) -> bool {
        session.leave(id);
        let Some(shared) = self.room(id) else { return false };
        let was_in = shared.room.lock().leave(socket).is_some();
        self.drop_if_empty(&shared);
        was_in
    }

    /// Takes a socket that has disconnected out of every room.
    pub fn leave_all(&self, socket: Sid, session: &Session) {
        for id in session.disconnect() {
            self.leave(socket, session, id);
        }
    }

    /// Sends a member's message to everyone in the room, the sender included.
    ///
    /// # Errors
    /// `not_in_room`.
    pub fn relay(&self, sender: Sid, id: LocationId, chat: &Arc<RawValue>) -> Result<()> {
        let not_in_room = || Error::new(Code::NotInRoom, format!("join room {id} before sending to it"));
        let shared = self.room(id).ok_or_else(not_in_room)?;
        let room = shared.room.lock();
        if !room.has(sender) {
            return Err(not_in_room());
        }
        for Member { socket, outlet, .. } in room.members() {
            outlet.event(socket, "chat", chat.clone());
        }
        Ok(())
    }

    /// Sends a committed update to its room. `true`: the room has begun to lack versions before it, which
    /// [`Rooms::fill`] reads.
    ///
    /// # Errors
    /// `internal`.
    pub fn updated(&self, location: &Location) -> Result<bool> {
        let Some(shared) = self.room(location.id) else { return Ok(false) };
        let update = update(location)?;
        let mut room = shared.room.lock();
        let lacked = room.lacks();
        if !room.hear(update, Instant::now()) {
            self.behind.lock().insert(shared.id);
        }
        Ok(room.lacks() && !lacked)
    }

    /// Closes the room of a deleted location: each member is taken out, then told.
    pub fn deleted(&self, id: LocationId) {
        let Some(shared) = self.rooms.lock().remove(&id) else { return };
        let mut room = shared.room.lock();
        let closed = body(&RoomClosed { room_name: &id.to_string(), reason: "deleted" });
        for Member { socket, outlet, session } in room.close() {
            session.leave(id);
            outlet.event(&socket, "room_closed", closed.clone());
        }
    }

    /// Sends members what they could not be sent before; returns the rooms that lack versions themselves.
    pub fn catch_up(&self) -> Vec<LocationId> {
        // First: what waits there was said before.
        outlet::flush(&self.blocked);
        let behind = std::mem::take(&mut *self.behind.lock());
        let mut lacking = Vec::new();
        for id in behind {
            let Some(shared) = self.room(id) else { continue };
            let mut room = shared.room.lock();
            let (stalled, all) = room.catch_up(Instant::now());
            for Member { socket, outlet, session } in stalled {
                info!(socket = log_name(&socket), room = %id, "too slow for what it missed: it is to connect again");
                session.leave(id);
                outlet.cut();
            }
            if room.lacks() {
                lacking.push(id);
            }
            if !all {
                self.behind.lock().insert(id);
            }
        }
        lacking
    }

    /// Compares with the database every [`SWEEP`], so that a room recovers also from what it never heard of:
    /// one indexed read for many rooms. What the database has at one look and a room not at the next was
    /// lost; what is on its way is not read in vain.
    pub async fn sweep(&self) {
        let mut before = HashMap::new();
        loop {
            sleep(SWEEP).await;
            let live: Vec<_> = self.rooms.lock().values().cloned().collect();
            live.iter().for_each(|shared| shared.room.lock().forget(Instant::now()));
            let live: Vec<_> = live.iter().map(|shared| shared.id).collect();
            let mut now: HashMap<LocationId, Option<u64>> = HashMap::new();
            for ids in live.chunks(SWEPT_TOGETHER) {
                // Without the database there is nothing to compare with.
                let Ok(found) = self.service.versions(ids).await else { continue };
                now.extend(ids.iter().map(|id| (*id, None)));
                now.extend(found.into_iter().map(|(id, version)| (id, Some(version))));
            }
            for (id, seen) in std::mem::take(&mut before) {
                match seen {
                    None if now.get(&id) == Some(&None) => self.deleted(id),
                    Some(version)
                        if self.room(id).is_some_and(|shared| shared.room.lock().expect(version)) =>
                    {
                        info!(room = %id, version, "was lost on the way");
                        self.behind.lock().insert(id);
                    }
                    _ => {}
                }
            }
            before = now;
        }
    }

    /// Reads the versions a room lacks, unless somebody else is at it.
    pub async fn fill(&self, id: LocationId) {
        let Some(visit) = Visit::to_live(self, id) else { return };
        let Ok(filling) = visit.shared.filling.try_lock() else { return };
        loop {
            let before = visit.shared.room.lock().head();
            let asked = self.ask(&visit.shared, None).await;
            let room = visit.shared.room.lock();
            if !room.lacks() {
                // Under the room's lock: who finds it lacking again is to find this free.
                drop(filling);
                return;
            }
            if asked.is_err() || room.head() == before {
                break;
            }
        }
        sleep(READ_AGAIN).await;
        drop(filling);
        self.behind.lock().insert(id);
    }

    /// Asks the database for what a room lacks or somebody who has `since` needs, unless somebody else has
    /// done so meanwhile: one read serves all who wait.
    async fn ask(&self, shared: &Shared, since: Option<u64>) -> Result<()> {
        let asked_at = Instant::now();
        let mut last = shared.turn.lock().await;
        let began = Instant::now();
        let from = {
            let room = shared.room.lock();
            if room.entry(since, false) != Entry::Unknown && !room.lacks() {
                return Ok(());
            }
            room.read_from(began)
        };
        match *last {
            // For this visitor too: the room knew of all who waited.
            Some((began, true)) if began >= asked_at => return Ok(()),
            Some((began, false)) if began >= asked_at => {
                return Err(Error::database_away());
            }
            _ => {}
        }
        let id = shared.id;
        let read = async {
            let _permit = self.reads.acquire().await.map_err(Error::internal)?;
            let run = self.service.newest(id, from, MAX_MISSED + 1).await?;
            debug!(room = %id, from, versions = run.len(), "read for a room");
            run.iter().map(update).collect::<Result<Vec<_>>>()
        };
        match read.await {
            Ok(run) => {
                *last = Some((began, true));
                let mut room = shared.room.lock();
                if !room.learn(run, Instant::now()) || room.lacks() {
                    self.behind.lock().insert(id);
                }
                Ok(())
            }
            Err(error) if error.code == Code::NotFound => {
                self.deleted(id);
                Err(error)
            }
            Err(error) => {
                *last = Some((began, false));
                Err(error)
            }
        }
    }

    fn room(&self, id: LocationId) -> Option<Arc<Shared>> {
        self.rooms.lock().get(&id).cloned()
    }

    fn drop_if_empty(&self, shared: &Arc<Shared>) {
        let mut rooms = self.rooms.lock();
        let is_listed = rooms.get(&shared.id).is_some_and(|listed| Arc::ptr_eq(listed, shared));
        if is_listed && shared.room.lock().is_empty() {
            rooms.remove(&shared.id);
        }
    }
}

impl Live for Weak<Rooms> {
    fn current(&self, id: LocationId) -> Option<Current> {
        let shared = self.upgrade()?.room(id)?;
        let room = shared.room.lock();
        room.current().map(|Update { version, chat, message }| Current {
            version: *version,
            feature: chat.get()[message.clone()].to_owned(),
        })
    }
}

impl fmt::Debug for Rooms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rooms").finish_non_exhaustive()
    }
}

/// A version as its room is sent it.
fn update(location: &Location) -> Result<Update> {
    let Location { id, version, updated_by, .. } = location;
    let feature = location.to_feature();
    let before = format!(r#"{{"userId":{updated_by},"message":"#);
    let chat = format!(r#"{before}{feature},"roomName":"{id}","version":{version}}}"#);
    let message = before.len()..before.len() + feature.len();
    Ok(Update { version: *version, chat: RawValue::from_string(chat).map_err(Error::internal)?, message })
}

/// Somebody on the way into a room: while it lasts, the room is there, hears of updates and remembers those
/// after `since`.
struct Visit<'a> {
    rooms: &'a Rooms,
    shared: Arc<Shared>,
    since: Option<u64>,
}

impl<'a> Visit<'a> {
    fn new(rooms: &'a Rooms, id: LocationId, since: Option<u64>) -> Self {
        let mut all = rooms.rooms.lock();
        let new = || Arc::new(Shared::new(id));
        let shared = all.entry(id).or_insert_with(new).clone();
        shared.room.lock().arrive(since);
        Self { rooms, shared, since }
    }

    /// Into a room that is there.
    fn to_live(rooms: &'a Rooms, id: LocationId) -> Option<Self> {
        // Held until the room knows of the visit: it could be dropped in between.
        let all = rooms.rooms.lock();
        let shared = all.get(&id)?.clone();
        shared.room.lock().arrive(None);
        Some(Self { rooms, shared, since: None })
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.shared.room.lock().depart(self.since, Instant::now());
        self.rooms.drop_if_empty(&self.shared);
    }
}
