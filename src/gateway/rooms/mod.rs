//! All rooms: who enters which, and what they learn from events and from the database.
//!
//! A room exists here while somebody is in it or entering it. Entering takes the room's lock, as does every
//! update, so a member is sent where it begins and then everything after it: no hole, no repeat. What a room
//! lacks is read from the database, one read a room at a time, which serves all who wait for it.

mod healing;
mod occupants;
pub mod presence;
mod reads;
mod rights;
pub mod room;
mod turns;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::value::RawValue;
use socketioxide::{extract::SocketRef, socket::Sid};
use tokio::{sync::Notify, time::sleep};
use tracing::{debug, info};

pub use self::healing::Broken;
use self::{
    healing::Tasks,
    presence::{Leaving, Presence},
    reads::Reads,
    rights::tell_closed,
    room::{Entry, MAX_MISSED, Room, TURN, WHOLE_TURN},
    turns::update,
};
use super::{
    client::Client,
    metrics::Counts,
    people::{announcer::Due, directory::People},
    socket::{
        outbox::{Blocked, CHAT, Outbox},
        reply::Reply,
        session::{Session, log_name},
    },
    wire::connection::Connection,
};
use crate::{
    domain::{
        access::{Access, Action, Caller, Payer, RightsChange, Role, may},
        error::{Code, Error, Result},
        id::{LocationId, UserId},
        presence::ActiveUsers,
        time::Timestamp,
    },
    service::{Current, LiveRooms, RoomSize, Service, history::Head},
};

pub use reads::READS;

/// How often live rooms are compared with the database: after at most two of these what was lost is noticed.
const SWEEP: Duration = Duration::from_millis(1_500);
/// Rooms of one read of the sweep.
const SWEPT_TOGETHER: usize = 1_024;

/// After a read that did not bring what a room lacks.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// All rooms of this process.
pub struct Rooms {
    pub service: Arc<Service>,
    /// Written when a room's first member enters or its last leaves. Taken before a room's lock, and
    /// never held while anything is sent.
    rooms: Mutex<HashMap<LocationId, Arc<Shared>>>,
    /// Rooms that owe their members something, or lack versions themselves: tried again now and then.
    behind: Mutex<HashSet<LocationId>>,
    /// Rooms that have not gone through all of their members, each once: they have their turns one after the other.
    unfinished: Mutex<VecDeque<Arc<Shared>>>,
    /// Told when there is one.
    pub turns: Notify,
    reads: Reads,
    /// Sockets that something other than a position waits for.
    pub blocked: Arc<Blocked>,
    pub counts: Counts,
    /// Whose sockets are connected.
    pub people: Arc<People>,
    /// Rooms in which somebody has come or gone.
    pub due: Due,
    /// What rooms are worked on by: a panic over one room is caught and leaves the others alone.
    pub tasks: Tasks,
}

/// A room that many tasks use.
struct Shared {
    id: LocationId,
    /// Written by entering, leaving and every update; held while an update is queued to its members.
    room: Mutex<Room<Sid, Member>>,
    /// Whose the members are. Written after them, and held for nothing else.
    presence: Mutex<Presence>,
    /// Who may be in it. Held while somebody enters or is taken out; before the room's lock.
    door: Mutex<Door>,
    /// Whoever has it reads from the database, for all who wait for it. When the last read began, and whether
    /// it was answered.
    turn: tokio::sync::Mutex<Option<(Instant, bool)>>,
    /// Whoever has it sees to it that the room gets what it lacks.
    filling: tokio::sync::Mutex<()>,
    /// It is among those that wait for a turn. Written under the room's lock.
    has_turn: AtomicBool,
    /// Of the newest Feature, about: what sending another costs.
    bytes: AtomicUsize,
}

impl Shared {
    fn new(id: LocationId) -> Self {
        Self {
            id,
            room: Mutex::default(),
            presence: Mutex::default(),
            door: Mutex::default(),
            turn: Default::default(),
            filling: Default::default(),
            has_turn: AtomicBool::default(),
            bytes: AtomicUsize::default(),
        }
    }
}

struct Member {
    /// The outbox's: all that sending a position to a socket that keeps up looks at.
    connection: Arc<Connection>,
    socket: SocketRef,
    outbox: Arc<Outbox>,
    session: Arc<Session>,
    /// Whose it is; a guest sees positions and nothing else.
    user: Option<UserId>,
}

/// What a room knows of rights to its location: nothing, until somebody comes for whom it matters.
#[derive(Default)]
struct Door {
    access: Option<Access>,
    /// Changes heard of while rights are being read.
    heard: Option<Vec<RightsChange>>,
}

impl Door {
    /// Is it known what a caller is to the location?
    fn knows(&self, caller: &Caller) -> bool {
        self.access.is_some() || matches!(caller, Caller::Anyone(_) | Caller::User { is_admin: true, .. })
    }

    /// `None`: not known yet.
    fn role(&self, caller: &Caller, id: LocationId) -> Option<Option<Role>> {
        match caller {
            Caller::Anyone(_) | Caller::User { is_admin: true, .. } => Some(Some(Role::Owner)),
            _ => self.access.as_ref().map(|access| access.role(caller, id, Timestamp::now())),
        }
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

impl Rooms {
    /// No rooms yet; what they need to know comes from `service`.
    pub fn new(service: Arc<Service>) -> Self {
        Self {
            counts: Counts::start(&service.metrics),
            tasks: Tasks::of(&service.tasks),
            service,
            rooms: Mutex::default(),
            behind: Mutex::default(),
            unfinished: Mutex::default(),
            turns: Notify::new(),
            reads: Reads::new(),
            blocked: Arc::default(),
            people: Arc::default(),
            due: Due::default(),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rooms.lock().len()
    }

    /// How many owe their members something, or lack versions themselves.
    pub fn behind(&self) -> usize {
        self.behind.lock().len()
    }

    /// How many are being read for.
    pub fn reading(&self) -> usize {
        self.reads.running()
    }

    /// Lets a socket in: ack, then the current state or every update after `since`, then everything newer.
    ///
    /// # Errors
    /// `rate_limited`, `not_found`, `forbidden`, `storage_unavailable`, `internal`.
    pub async fn join(
        &self,
        client: &Client,
        socket: &SocketRef,
        id: LocationId,
        since: Option<u64>,
        reply: &mut Reply,
    ) -> Result<()> {
        let Client { session, outbox, payer, .. } = client;
        let caller = session.caller();
        session.may_enter(id)?;
        // Of what was before a share link was made its guests learn nothing: that counts as not kept.
        let missed = since.filter(|since| match &caller {
            Caller::Guest(guest) => since + 1 >= guest.from,
            _ => true,
        });
        let (visit, failure) = self.visit(*payer, &caller, id, missed).await?;
        let shared = &visit.shared;
        let door = shared.door.lock();
        // Once more: the right may have ended while the database was read.
        may(door.role(&caller, id).flatten(), Action::See, id)?;
        let mut room = shared.room.lock();
        // If the database could not be asked, a live room goes on with what it knows.
        let entry = room.entry(missed, true);
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
        let member = Member {
            connection: outbox.connection().clone(),
            socket: socket.clone(),
            outbox: outbox.clone(),
            session: session.clone(),
            user: session.member(),
        };
        let (before, now) = (room.member(socket.id).map(|member| member.user), member.user);
        if !room.enter(socket.id, member, entry, Instant::now()) {
            self.behind.lock().insert(id);
        }
        self.counts.sent(room.tally());
        if before != Some(now) {
            self.moved(shared, before, Some(now), Leaving::ForGood);
        }
        let recovered = since.map(|_| recovered);
        info!(socket = log_name(socket), room = %id, user = %session.name(), since, recovered, version, "join");
        Ok(())
    }

    /// Brings a caller who may see a location to its room, and finds out what the room must know to let them in; if
    /// the database cannot say that, why not.
    async fn visit(
        &self,
        payer: Payer,
        caller: &Caller,
        id: LocationId,
        missed: Option<u64>,
    ) -> Result<(Visit<'_>, Option<Error>)> {
        // Before the room is there: for who may not see it no room is made, and nothing is read but one row.
        // Boxed, as below: a join that reads nothing, which is most of them, is not to carry the room for it.
        let role = match self.known_role(caller, id) {
            Some(role) => role,
            None => Box::pin(self.read_role(payer, caller, id)).await?,
        };
        may(role, Action::See, id)?;
        // From here on the room hears of updates, so what commits after the read below is not missed.
        let visit = Visit::new(self, id, missed);
        let shared = &visit.shared;
        if !shared.door.lock().knows(caller) {
            Box::pin(self.read_access(shared, payer, caller)).await?;
        }
        let is_known = shared.room.lock().entry(missed, false) != Entry::Unknown;
        let failure = if is_known { None } else { Box::pin(self.ask_for(payer, shared, missed)).await.err() };
        Ok((visit, failure))
    }

    /// Takes a socket out; `false` if it was not in.
    pub fn leave(&self, socket: Sid, session: &Session, id: LocationId, how: Leaving) -> bool {
        session.leave(id);
        let Some(shared) = self.room(id) else { return false };
        let was_in = shared.room.lock().leave(socket);
        if let Some((member, mark)) = &was_in {
            self.moved(&shared, Some(member.user), None, how);
            member.outbox.record_unread(id, *mark);
        }
        self.drop_if_empty(&shared);
        was_in.is_some()
    }

    /// Takes a socket that has disconnected out of every room; returns those.
    pub fn leave_all(&self, socket: Sid, session: &Session, how: Leaving) -> HashSet<LocationId> {
        let rooms = session.disconnect();
        for id in &rooms {
            self.leave(socket, session, *id, how);
        }
        rooms
    }

    /// Sends a member's message to everyone in the room, the sender included, on the account of `payer`.
    ///
    /// # Errors
    /// `not_in_room`, `forbidden`, `rate_limited`.
    pub fn relay(&self, sender: Sid, payer: Payer, id: LocationId, chat: &Arc<RawValue>) -> Result<()> {
        let not_in_room = || Error::new(Code::NotInRoom, format!("join room {id} before sending to it"));
        let shared = self.room(id).ok_or_else(not_in_room)?;
        let room = shared.room.lock();
        let user = room.member(sender).ok_or_else(not_in_room)?.user;
        let role = if user.is_none() { Role::Guest } else { Role::Viewer };
        may(Some(role), Action::Meet, id)?;
        // Not before: nobody spends what a room has who is not in it.
        let paid = shared.presence.lock().paid_sockets();
        self.service.limits.take_chat(payer, id, paid, chat.get().len())?;
        for Member { socket, outbox, .. } in room.members().filter(|member| member.user.is_some()) {
            outbox.send_room_event(socket, id, user, CHAT, chat.clone());
        }
        Ok(())
    }

    /// Closes the room of a deleted location: each member is taken out, then told.
    pub fn deleted(&self, id: LocationId) {
        let Some(shared) = self.rooms.lock().remove(&id) else { return };
        let mut room = shared.room.lock();
        // What was committed before is theirs.
        self.serve(&shared, &mut room, WHOLE_TURN);
        let gone = room.close().collect();
        // What is on its way to them they had a right to, and nobody else has lost one: it ends no connection.
        let _ = tell_closed(id, gone, |_| "deleted");
    }

    /// Compares with the database every [`SWEEP`], so that a room recovers also from what it never heard of:
    /// one indexed read for many rooms. What the database has at one look and a room not at the next was
    /// lost; what is on its way is not read in vain.
    pub async fn sweep(&self) {
        let mut before = HashMap::new();
        loop {
            sleep(SWEEP).await;
            let live: Vec<_> = self.rooms.lock().values().cloned().collect();
            for shared in &live {
                self.tasks.sweep.catch(|| shared.room.lock().forget(Instant::now()));
            }
            let live: Vec<_> = live.iter().map(|shared| shared.id).collect();
            let mut now: HashMap<LocationId, Option<u64>> = HashMap::new();
            for ids in live.chunks(SWEPT_TOGETHER) {
                // Without the database there is nothing to compare with.
                let Ok(found) = self.service.versions(ids).await else { continue };
                now.extend(ids.iter().map(|id| (*id, None)));
                now.extend(found.iter().map(|head| (head.id, Some(head.version))));
                for head in found.iter().filter(|head| self.knows_fewer(head)) {
                    let refreshed = self.tasks.sweep.catch_async(self.refresh(head.id)).await;
                    if let Some(Err(error)) = refreshed {
                        debug!(room = %head.id, %error, "rights");
                    }
                }
            }
            for (id, seen) in std::mem::take(&mut before) {
                self.tasks.sweep.catch(|| match seen {
                    None if now.get(&id) == Some(&None) => self.deleted(id),
                    Some(version) if self.has_lost(id, version) => {
                        info!(room = %id, version, "was lost on the way");
                        self.behind.lock().insert(id);
                    }
                    _ => {}
                });
            }
            before = now;
        }
    }

    /// Does a room lack what the database has had for a while?
    fn has_lost(&self, id: LocationId, version: u64) -> bool {
        let Some(shared) = self.room(id) else { return false };
        let mut room = shared.room.lock();
        let lacked = room.lacks();
        let lacks = room.expect(version);
        if lacks && !lacked {
            self.counts.healed.inc();
        }
        lacks
    }

    /// Have rights been changed that a room has not heard of?
    fn knows_fewer(&self, head: &Head) -> bool {
        let Some(shared) = self.room(head.id) else { return false };
        shared.door.lock().access.as_ref().is_some_and(|access| access.grants < head.grants)
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

    /// The same as [`Rooms::ask`] for a caller, of whose reads only so many run at once, and who pays for them.
    async fn ask_for(&self, payer: Payer, shared: &Arc<Shared>, since: Option<u64>) -> Result<()> {
        self.service.limits.check_rows(payer)?;
        let _share = self.reads.share(payer).await?;
        let rows = self.ask(shared, since).await?;
        // The newest is what every join of a room that is not live costs.
        self.service.limits.record_rows(payer, rows.saturating_sub(1));
        Ok(())
    }

    /// Asks the database for what a room lacks or somebody who has `since` needs, unless somebody else has
    /// done so meanwhile: one read serves all who wait. Returns how many rows were read.
    async fn ask(&self, shared: &Arc<Shared>, since: Option<u64>) -> Result<usize> {
        let asked_at = Instant::now();
        let mut last = shared.turn.lock().await;
        let began = Instant::now();
        let from = {
            let room = shared.room.lock();
            if room.entry(since, false) != Entry::Unknown && !room.lacks() {
                return Ok(0);
            }
            room.read_from(began)
        };
        match *last {
            // For this visitor too: the room knew of all who waited.
            Some((began, true)) if began >= asked_at => return Ok(0),
            Some((began, false)) if began >= asked_at => {
                return Err(Error::database_away());
            }
            _ => {}
        }
        let id = shared.id;
        let read = async {
            let _permit = self.reads.permit().await?;
            let run = self.service.newest(id, from, MAX_MISSED + 1).await?;
            debug!(room = %id, from, versions = run.len(), "read for a room");
            Ok::<Vec<_>, Error>(run.into_iter().map(|location| update(&location.into())).collect())
        };
        match read.await {
            Ok(run) => {
                *last = Some((began, true));
                let rows = run.len();
                if let Some(newest) = run.last() {
                    shared.bytes.store(newest.message().len(), Ordering::Relaxed);
                }
                let mut room = shared.room.lock();
                room.learn(run, Instant::now());
                self.serve(shared, &mut room, TURN);
                if room.lacks() {
                    self.behind.lock().insert(id);
                }
                Ok(rows)
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

impl LiveRooms for Weak<Rooms> {
    fn current(&self, by: &Caller, id: LocationId) -> Option<Result<Current>> {
        let shared = self.upgrade()?.room(id)?;
        let role = shared.door.lock().role(by, id)?;
        let room = shared.room.lock();
        let current = room.current()?;
        let seen = may(role, Action::See, id);
        Some(seen.map(|()| Current { version: current.version, feature: current.message().to_owned() }))
    }

    fn room_size(&self, by: &Caller, id: LocationId) -> RoomSize {
        let Some(shared) = self.upgrade().and_then(|rooms| rooms.room(id)) else {
            return RoomSize::default();
        };
        // Not if somebody is just entering, who may wait for the room's own lock, which is held while an update is
        // sent.
        let role = shared.door.try_lock().and_then(|door| door.role(by, id));
        match role.map(|role| may(role, Action::Move, id)) {
            // It will be refused, so nobody is told.
            Some(Err(_)) => RoomSize::default(),
            _ => RoomSize {
                sockets: shared.presence.lock().paid_sockets(),
                update_bytes: shared.bytes.load(Ordering::Relaxed),
            },
        }
    }

    fn active_users(&self) -> ActiveUsers {
        self.upgrade().map(|rooms| rooms.people.active()).unwrap_or_default()
    }

    fn rename(&self, user: UserId) {
        if let Some(rooms) = self.upgrade() {
            rooms.people.call(user, |user| rooms.service.name_said(user));
        }
    }
}

impl fmt::Debug for Rooms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rooms").finish_non_exhaustive()
    }
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
