//! The state of a room: the newest versions of its location, its members, and the version each was sent last.
//!
//! Snapshot, live stream and recovery meet here. This code only decides: it has no locks, tasks or database, so the
//! model in `model/` can put every order of events to it.

mod member;
#[cfg(test)]
mod model;
mod update;

use std::{
    collections::BTreeMap,
    hash::Hash,
    time::{Duration, Instant},
};

use indexmap::IndexMap;

use self::{member::Member, update::Recent};
pub use self::{
    member::{Sink, Tally},
    update::Update,
};

/// A client may have missed this many updates and still be sent them one by one,
pub const MAX_MISSED: u64 = 1_000;
/// if these together take at most this many bytes.
const MAX_MISSED_BYTES: usize = 1024 * 1024;
/// A room remembers this many versions for clients that come back at once,
const KEPT: usize = 8;
/// in at most this many bytes.
const KEPT_BYTES: usize = 8 * 1024;
/// Versions that were read for somebody who came back are remembered for this long, because others who come back want
/// them too.
const REMEMBERED: Duration = Duration::from_secs(5);
/// Limits what a room sends in one turn to about half a millisecond's work; then it is another room's turn. Visiting a
/// member that is owed nothing costs next to nothing.
pub const TURN: Turn = Turn { versions: 64, bytes: 512 * 1024, visits: 8_192 };
/// A turn that goes through all members, however long that takes.
pub const WHOLE_TURN: Turn = Turn { versions: u64::MAX, bytes: u64::MAX, visits: usize::MAX };

/// The state of one room, with members of type `S` that are known by a key `K`.
#[derive(Debug)]
pub struct Room<K, S> {
    recent: Recent,
    /// The database was read for this room.
    was_read: bool,
    /// The newest version that the room was told of. If it is above the head, versions were lost on the way here.
    newest_known: u64,
    /// The members in a lasting order, so that sending to all of them can stop and go on.
    members: IndexMap<K, Member<S>>,
    pass: Pass,
    /// The number of clients on their way in, by the version that they have.
    entrants: BTreeMap<Option<u64>, usize>,
    /// The time until which versions that were read for somebody who came back are remembered.
    remembered_until: Option<Instant>,
    /// Some members may still be owed every version, not only the newest.
    is_replaying: bool,
    is_closed: bool,
    tally: Tally,
}

/// The progress of going through all members to send each what it is owed.
#[derive(Debug, Default)]
struct Pass {
    next: usize,
    /// The number of members still to be visited; after the last one the pass goes on with the first.
    left: usize,
    /// Some of those visited could not be sent everything.
    is_behind: bool,
    /// Some of those visited are still owed every version.
    is_replaying: bool,
    /// The times at which the bodies of the PUTs were complete whose versions are being sent.
    received_at: Vec<Instant>,
}

#[derive(Clone, Copy, Debug)]
pub struct Turn {
    pub versions: u64,
    pub bytes: u64,
    pub visits: usize,
}

#[derive(Debug)]
pub struct Served<S> {
    /// Members that were too slow for what they missed. They are out of the room.
    pub stalled: Vec<S>,
    pub is_done: bool,
    /// The pass is complete, and some members could not be sent everything.
    pub is_behind: bool,
    pub received_at: Vec<Instant>,
}

/// The way in which a client may enter a room.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Entry {
    Closed,
    /// The database must be read before.
    NeedsRead,
    Current,
    /// The client is sent every update after this version.
    After(u64),
}

impl<K, S> Default for Room<K, S> {
    fn default() -> Self {
        Self {
            recent: Recent::default(),
            was_read: false,
            newest_known: 0,
            members: IndexMap::new(),
            pass: Pass::default(),
            entrants: BTreeMap::new(),
            remembered_until: None,
            is_replaying: false,
            is_closed: false,
            tally: Tally::default(),
        }
    }
}

impl<K: Copy + Eq + Hash, S: Sink> Room<K, S> {
    /// Returns the newest version that the members have or are owed.
    pub fn head(&self) -> Option<u64> {
        self.recent.head().map(|head| head.version)
    }

    /// Returns the state of the location as the members have or are owed it, once the database was read.
    pub fn current(&self) -> Option<&Update> {
        self.recent.head().filter(|_| self.was_read && !self.is_closed)
    }

    pub fn has_gap(&self) -> bool {
        !self.is_closed && self.head().is_some_and(|head| head < self.newest_known)
    }

    /// Checks whether nobody is in the room or on the way in.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.entrants.is_empty()
    }

    pub fn member(&self, key: K) -> Option<&S> {
        self.members.get(&key).map(|member| &member.sink)
    }

    pub fn member_mut(&mut self, key: K) -> Option<&mut S> {
        self.members.get_mut(&key).map(|member| &mut member.sink)
    }

    pub fn members(&self) -> impl Iterator<Item = &S> {
        self.members.values().map(|member| &member.sink)
    }

    /// Decides how a client that has version `since` may enter. `was_asked`: the database was asked since it came.
    pub fn entry(&self, since: Option<u64>, was_asked: bool) -> Entry {
        if self.is_closed {
            return Entry::Closed;
        }
        // An update that comes before the first read may be followed by others that are committed already.
        let Some(head) = self.head().filter(|_| self.was_read || was_asked) else { return Entry::NeedsRead };
        let Some(since) = since else { return Entry::Current };
        let is_kept = since <= head && self.recent.first_version().is_some_and(|first| first <= since + 1);
        let is_too_far = since <= head && head - since > MAX_MISSED;
        if is_kept && !is_too_far {
            let is_small = self.recent.bytes_after(since) <= MAX_MISSED_BYTES;
            if is_small { Entry::After(since) } else { Entry::Current }
        } else if is_too_far || was_asked {
            Entry::Current
        } else {
            Entry::NeedsRead
        }
    }

    /// Adds a client that has version `since` and is on its way in. Until [`Room::remove_entrant`] the room exists for
    /// it and remembers more.
    pub fn add_entrant(&mut self, since: Option<u64>) {
        *self.entrants.entry(since).or_default() += 1;
    }

    /// Removes a client that was on its way: it is in, or has gone away.
    pub fn remove_entrant(&mut self, since: Option<u64>, now: Instant) {
        if let Some(count) = self.entrants.get_mut(&since) {
            *count -= 1;
            if *count == 0 {
                self.entrants.remove(&since);
            }
        }
        self.forget_unneeded(now);
    }

    /// Returns the version from which on the database should be read, or `None` if only the newest is needed.
    pub fn read_from(&self, now: Instant) -> Option<u64> {
        let wanted = self.entrants.keys().flatten().copied();
        let from = match self.head() {
            // Another read so soon: those who come back have different versions. This one is for all of them.
            Some(head) if self.is_remembering(now) => wanted.chain([head.saturating_sub(MAX_MISSED)]).min(),
            // It is never later than the head: there must be no gap between the head and what is read.
            head => wanted.chain(head).min(),
        };
        from.map(|from| from.max(self.head().map_or(0, |head| head.saturating_sub(MAX_MISSED))))
    }

    /// Lets a client in, or in again. It returns `false` if the client could not be sent everything yet.
    ///
    /// # Panics
    /// With [`Entry::Closed`] or [`Entry::NeedsRead`].
    pub fn enter(&mut self, key: K, sink: S, entry: Entry, now: Instant) -> bool {
        // A client that joins again may not have read what it was sent before.
        let mark = self.members.get(&key).map_or(0, |before| before.mark);
        let since = match entry {
            Entry::Current => None,
            Entry::After(since) => Some(since),
            Entry::Closed | Entry::NeedsRead => unreachable!("nobody enters so"),
        };
        let mut member = Member::new(sink, mark, since, now);
        let is_current = member.send(self.recent.as_slice(), now, &mut self.tally);
        self.is_replaying |= !is_current;
        self.pass.is_replaying |= !is_current;
        self.members.insert(key, member);
        self.restart_pass();
        is_current
    }

    /// Takes a member out. It returns the member with a mark behind what it was sent last.
    pub fn leave(&mut self, member: K) -> Option<(S, u64)> {
        let gone = self.members.swap_remove(&member)?;
        self.restart_pass();
        Some((gone.sink, gone.mark))
    }

    /// Takes out members, and returns each with a mark behind what it was sent last.
    pub fn expel(&mut self, is_out: impl Fn(&S) -> bool) -> Vec<(S, u64)> {
        let gone = self.members.extract_if(.., |_, member| is_out(&member.sink));
        let gone = gone.map(|(_, member)| (member.sink, member.mark)).collect();
        self.restart_pass();
        gone
    }

    /// Ends the room and takes everybody out. It returns each member with a mark behind what it was sent last.
    pub fn close(&mut self) -> impl Iterator<Item = (S, u64)> {
        self.is_closed = true;
        self.pass = Pass::default();
        self.members.drain(..).map(|(_, member)| (member.sink, member.mark))
    }

    /// Takes updates that were committed, each with the time at which its PUT's body was complete, if that is known.
    /// An update that is not the head's successor is only remembered as a gap. [`Room::serve`] then sends what is new.
    pub fn on_updates(&mut self, updates: impl IntoIterator<Item = (Update, Option<Instant>)>) {
        for (update, received_at) in updates {
            self.newest_known = self.newest_known.max(update.version);
            if self.head().is_none_or(|head| update.version == head + 1) {
                self.append(update);
                self.pass.received_at.extend(received_at);
                self.begin_pass();
            }
        }
    }

    /// Records that a version is committed. It returns `true` if the room lacks it.
    pub fn record_committed(&mut self, version: u64) -> bool {
        self.newest_known = self.newest_known.max(version);
        self.has_gap()
    }

    /// Takes the versions that were read from the database: ascending without a gap, the last one the newest at that
    /// time. [`Room::serve`] then sends what is new.
    pub fn on_read(&mut self, mut run: Vec<Update>, now: Instant) {
        let is_first_read = !std::mem::replace(&mut self.was_read, true);
        if run.len() > 1 {
            self.remembered_until = Some(now + REMEMBERED);
        }
        let newest = run.last().map_or(0, |newest| newest.version);
        if is_first_read && self.recent.first_version().is_some_and(|first| newest + 1 < first) {
            // Versions between were lost, and nobody has been sent what came after them.
            self.recent.clear();
        }
        let head = self.head().unwrap_or(0);
        let newer = run.split_off(run.partition_point(|update| update.version <= head));
        self.recent.prepend(run);
        if newer.first().is_some_and(|next| next.version > head + 1) {
            // History no longer has the versions between.
            self.recent.clear();
        }
        newer.into_iter().for_each(|update| self.append(update));
        self.begin_pass();
    }

    /// Makes [`Room::serve`] go through all members: some may be owed what they could not be sent before.
    pub fn begin_pass(&mut self) {
        if self.pass.left == 0 {
            (self.pass.is_behind, self.pass.is_replaying) = (false, false);
        }
        self.pass.left = self.members.len();
    }

    /// Checks whether so much is on its way to the members that they must have it before the room takes more.
    pub fn is_full(&self) -> bool {
        self.pass.left > 0 && self.recent.exceeds(MAX_MISSED as usize / 2, MAX_MISSED_BYTES / 2)
    }

    /// Starts a pass that is under way again: members have come or gone, so others may have changed their places.
    fn restart_pass(&mut self) {
        if self.pass.left > 0 {
            self.pass.left = self.members.len();
        }
    }

    /// Sends members what they are owed, as much as one turn allows, and takes out those that have stalled over what
    /// they missed.
    pub fn serve(&mut self, now: Instant, turn: Turn) -> Served<S> {
        let recent = self.recent.as_slice();
        let head = recent.last();
        let head_bytes = head.map_or(0, |head| head.bytes() as u64);
        let head = head.map(|head| head.version);
        let (mut versions, mut bytes, mut visits) = (0, 0, 0);
        let mut stalled = Vec::new();
        while self.pass.left > 0 && versions < turn.versions && bytes < turn.bytes && visits < turn.visits {
            if self.pass.next >= self.members.len() {
                self.pass.next = 0;
            }
            let Some((key, member)) = self.members.get_index_mut(self.pass.next) else { break };
            let before = self.tally.sent();
            self.pass.is_behind |= !member.send(recent, now, &mut self.tally);
            self.pass.is_replaying |= member.is_replaying() && Some(member.sent) < head;
            member.record_progress(recent, now);
            if member.has_stalled(recent, now) {
                stalled.push(*key);
            }
            let sent = self.tally.sent() - before;
            versions += sent;
            bytes += sent * head_bytes;
            visits += 1;
            self.pass.next += 1;
            self.pass.left -= 1;
        }
        let stalled = stalled.into_iter().filter_map(|key| Some(self.leave(key)?.0)).collect();
        let is_done = self.pass.left == 0 || self.members.is_empty();
        let mut received_at = Vec::new();
        if is_done {
            self.pass.left = 0;
            self.is_replaying = self.pass.is_replaying;
            received_at = std::mem::take(&mut self.pass.received_at);
            self.forget_unneeded(now);
        }
        Served { stalled, is_done, is_behind: self.pass.is_behind, received_at }
    }

    /// Returns what was sent since the last call.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    fn append(&mut self, update: Update) {
        self.newest_known = self.newest_known.max(update.version);
        self.recent.push(update);
    }

    fn is_remembering(&self, now: Instant) -> bool {
        self.remembered_until.is_some_and(|until| now < until)
    }

    /// Forgets versions that nobody is owed or likely to want.
    pub fn forget_unneeded(&mut self, now: Instant) {
        if self.pass.left > 0 {
            // Some members have not been visited yet.
            return;
        }
        let is_wanted = self.is_replaying || self.entrants.keys().any(Option::is_some);
        let (updates, bytes) = match is_wanted || self.is_remembering(now) {
            true => (MAX_MISSED as usize, MAX_MISSED_BYTES),
            false => (KEPT, KEPT_BYTES),
        };
        self.recent.trim(updates, bytes);
    }
}
