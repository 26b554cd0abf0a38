//! One room: what it remembers of its location, who is in it, and up to where each of them has it.
//!
//! Snapshot, stream and recovery meet here. Decisions only: no locks, no tasks, no database, so that the
//! model in `model.rs` can put every order of events to it. `rooms/mod.rs` does the rest.

use std::{
    collections::{BTreeMap, VecDeque},
    hash::Hash,
    ops::Range,
    sync::OnceLock,
    time::{Duration, Instant},
};

use bytes::Bytes;
use indexmap::IndexMap;
use serde_json::value::RawValue;

use crate::gateway::wire::frames;

#[cfg(test)]
mod model;

/// Updates somebody may have missed and still be sent one by one.
pub const MAX_MISSED: u64 = 1_000;
/// And how many bytes they may take.
const MAX_MISSED_BYTES: usize = 1024 * 1024;
/// What a room remembers for those who are back at once.
const KEPT: usize = 8;
const KEPT_BYTES: usize = 8 * 1024;
/// What is sent to a member in one go, if it is more than one update.
const RUN_BYTES: usize = 8 * 1024;
/// How long more is remembered after it was read: others who come back want it too.
const REMEMBERED: Duration = Duration::from_secs(5);
/// How long a socket that is owed what it missed may take none of it.
const REPLAY_TIMEOUT: Duration = Duration::from_secs(10);
/// What a room sends in one turn, about half a millisecond's work; then it is another room's turn. Members that are
/// owed nothing cost next to nothing.
pub const TURN: Turn = Turn { versions: 64, bytes: 512 * 1024, visits: 8_192 };
/// A turn that goes through all members, whatever that takes.
pub const WHOLE_TURN: Turn = Turn { versions: u64::MAX, bytes: u64::MAX, visits: usize::MAX };

/// A committed version, as its room is sent it.
#[derive(Debug)]
pub struct Update {
    pub version: u64,
    /// A WebSocket frame with the event `chat` and its body `{userId, message, roomName, version}`, which connections
    /// that did not take all of it go on sharing.
    frame: Bytes,
    /// Where in it the body is, and in that the message.
    chat: Range<usize>,
    message: Range<usize>,
    /// The body, once somebody wants it alone.
    body: OnceLock<Box<RawValue>>,
}

/// The way to a member.
pub trait Sink {
    /// Sends all of these or none; `None`: it is full for now. `now`: for a whole room the clock is looked at once.
    /// Returns a mark behind them, by which it can be told whether they were read.
    fn send(&self, updates: &[Update], now: Instant) -> Option<u64>;

    /// Is it at most half full?
    fn has_room(&self) -> bool;
}

#[derive(Debug)]
pub struct Room<K, S> {
    /// The newest versions, ascending, without a gap. The last is the head.
    recent: VecDeque<Update>,
    /// Of all of `recent`.
    bytes: usize,
    /// Whether the database was read.
    was_read: bool,
    /// The newest version heard of. Above the head: something was lost on the way here.
    heard: u64,
    /// In an order that lasts, so that sending to all of them can stop and go on.
    members: IndexMap<K, Member<S>>,
    pass: Pass,
    /// Those on their way in: which version they have, and how many have that.
    visitors: BTreeMap<Option<u64>, usize>,
    /// Until when what was read for somebody who came back is remembered.
    remembered: Option<Instant>,
    /// Some members may still be owed every version, not only the newest.
    is_replaying: bool,
    /// The location was deleted.
    closed: bool,
    tally: Tally,
}

/// How far the members have been gone through to send each what it is owed.
#[derive(Debug, Default)]
struct Pass {
    /// The next member, and how many there are still to come; from the last on with the first.
    next: usize,
    left: usize,
    /// Of those since the pass began, some could not be sent everything, some are still owed every version.
    is_behind: bool,
    is_replaying: bool,
    /// When the PUTs came whose versions are on their way.
    came_at: Vec<Instant>,
}

/// How much may be done in one go.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    pub versions: u64,
    pub bytes: u64,
    pub visits: usize,
}

/// What came of a turn.
#[derive(Debug)]
pub struct Served<S> {
    /// Members that are too slow for what they missed, and out of the room.
    pub stalled: Vec<S>,
    /// Nothing was left to do.
    pub is_done: bool,
    /// Then: somebody could not be sent everything.
    pub is_behind: bool,
    /// When the PUTs came whose versions have now gone to all members.
    pub came_at: Vec<Instant>,
}

/// How many versions went to members, one for each.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    /// As they were committed.
    pub live: u64,
    /// Because somebody has joined.
    pub joining: u64,
    /// Not: something newer went instead.
    pub conflated: u64,
}

#[derive(Debug)]
struct Member<S> {
    sink: S,
    /// The newest version it was sent, and a mark behind it.
    sent: u64,
    mark: u64,
    /// It could not be sent what is newer, of which it gets the newest.
    is_behind: bool,
    /// It is owed every version since this one, not only the newest, until it has read most of them; when it
    /// was last seen to take some or be owed none, and up to which.
    replaying: Option<(Instant, u64)>,
}

/// How somebody may enter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Entry {
    /// There is no such room.
    Closed,
    /// Not before the database was asked.
    Unknown,
    /// With the current state.
    Current,
    /// With every update after this version.
    After(u64),
}

impl<K, S> Default for Room<K, S> {
    fn default() -> Self {
        Self {
            recent: VecDeque::new(),
            bytes: 0,
            was_read: false,
            heard: 0,
            members: IndexMap::new(),
            pass: Pass::default(),
            visitors: BTreeMap::new(),
            remembered: None,
            is_replaying: false,
            closed: false,
            tally: Tally::default(),
        }
    }
}

impl<K: Copy + Eq + Hash, S: Sink> Room<K, S> {
    /// The newest version its members have or are owed.
    pub fn head(&self) -> Option<u64> {
        self.recent.back().map(|head| head.version)
    }

    /// What its members have or are owed, once the database was read.
    pub fn current(&self) -> Option<&Update> {
        self.recent.back().filter(|_| self.was_read && !self.closed)
    }

    /// Does it lack versions that it has heard of?
    pub fn lacks(&self) -> bool {
        !self.closed && self.head().is_some_and(|head| head < self.heard)
    }

    /// Is nobody in it or on the way in?
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.visitors.is_empty()
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

    /// How somebody may enter who has version `since`. `informed`: the database was asked after they came.
    pub fn entry(&self, since: Option<u64>, informed: bool) -> Entry {
        // What is heard before the first read may be followed by more that is committed already.
        let head = self.head().filter(|_| self.was_read || informed);
        let (Some(head), false) = (head, self.closed) else {
            return if self.closed { Entry::Closed } else { Entry::Unknown };
        };
        let Some(since) = since else { return Entry::Current };
        let is_known = since <= head && self.recent[0].version <= since + 1;
        let is_lost = since <= head && head - since > MAX_MISSED;
        if is_known && !is_lost {
            let missed = self.recent.iter().rev().take_while(|update| update.version > since);
            match missed.map(Update::bytes).sum::<usize>() <= MAX_MISSED_BYTES {
                true => Entry::After(since),
                false => Entry::Current,
            }
        } else if is_lost || informed {
            Entry::Current
        } else {
            Entry::Unknown
        }
    }

    /// Somebody who has `since` is on the way in: until [`Room::depart`] the room is there for them and
    /// remembers more.
    pub fn arrive(&mut self, since: Option<u64>) {
        *self.visitors.entry(since).or_default() += 1;
    }

    /// They are in, or have gone away.
    pub fn depart(&mut self, since: Option<u64>, now: Instant) {
        if let Some(count) = self.visitors.get_mut(&since) {
            *count -= 1;
            if *count == 0 {
                self.visitors.remove(&since);
            }
        }
        self.forget(now);
    }

    /// From which version on the database should be read; `None`: only the newest.
    pub fn read_from(&self, now: Instant) -> Option<u64> {
        let wanted = self.visitors.keys().flatten().copied();
        let from = match self.head() {
            // Another read so soon: those who come back have different versions. This one is for all.
            Some(head) if self.is_remembering(now) => wanted.chain([head.saturating_sub(MAX_MISSED)]).min(),
            // Never later than the head: between it and what is read must be no gap.
            head => wanted.chain(head).min(),
        };
        from.map(|from| from.max(self.head().map_or(0, |head| head.saturating_sub(MAX_MISSED))))
    }

    /// Lets somebody in, or in again. `false`: they could not be sent everything yet.
    ///
    /// # Panics
    /// With [`Entry::Closed`] or [`Entry::Unknown`].
    pub fn enter(&mut self, key: K, sink: S, entry: Entry, now: Instant) -> bool {
        let (sent, replaying) = match entry {
            Entry::Current => (0, None),
            Entry::After(since) => (since, Some((now, since))),
            Entry::Closed | Entry::Unknown => unreachable!("nobody enters so"),
        };
        let is_behind = replaying.is_none();
        // Somebody who joins again may not have read what they were sent before.
        let mark = self.members.get(&key).map_or(0, |before| before.mark);
        let mut member = Member { sink, sent, mark, is_behind, replaying };
        let is_current = member.send(self.recent.make_contiguous(), now, &mut self.tally);
        self.is_replaying |= !is_current;
        self.pass.is_replaying |= !is_current;
        self.members.insert(key, member);
        self.resume_pass();
        is_current
    }

    /// Takes a member out; with it a mark behind what it was sent last.
    pub fn leave(&mut self, member: K) -> Option<(S, u64)> {
        let gone = self.members.swap_remove(&member)?;
        self.resume_pass();
        Some((gone.sink, gone.mark))
    }

    /// Takes out whoever may no longer be in it; with each a mark behind what it was sent last.
    pub fn expel(&mut self, is_out: impl Fn(&S) -> bool) -> Vec<(S, u64)> {
        let gone = self.members.extract_if(.., |_, member| is_out(&member.sink));
        let gone = gone.map(|(_, member)| (member.sink, member.mark)).collect();
        self.resume_pass();
        gone
    }

    /// Ends the room; returns who was in it, with a mark behind what each was sent last.
    pub fn close(&mut self) -> impl Iterator<Item = (S, u64)> {
        self.closed = true;
        self.pass = Pass::default();
        self.members.drain(..).map(|(_, member)| (member.sink, member.mark))
    }

    /// Takes what are said to be the next versions, each with the time at which its PUT came, if that is known.
    /// [`Room::serve`] then sends them.
    pub fn hear(&mut self, updates: impl IntoIterator<Item = (Update, Option<Instant>)>) {
        for (update, came_at) in updates {
            self.heard = self.heard.max(update.version);
            if self.head().is_none_or(|head| update.version == head + 1) {
                self.append(update);
                self.pass.came_at.extend(came_at);
                self.begin_pass();
            }
        }
    }

    /// This version is committed. `true`: the room lacks it.
    pub fn expect(&mut self, version: u64) -> bool {
        self.heard = self.heard.max(version);
        self.lacks()
    }

    /// Takes what the database said: versions ascending without a gap, the last the newest then. [`Room::serve`] then
    /// sends what is new.
    pub fn learn(&mut self, mut run: Vec<Update>, now: Instant) {
        let is_first_read = !std::mem::replace(&mut self.was_read, true);
        if run.len() > 1 {
            self.remembered = Some(now + REMEMBERED);
        }
        let newest = run.last().map_or(0, |newest| newest.version);
        if is_first_read && self.recent.front().is_some_and(|first| newest + 1 < first.version) {
            // Heard after something that was lost: nobody has been sent it yet.
            self.clear();
        }
        let head = self.head().unwrap_or(0);
        let newer = run.split_off(run.partition_point(|update| update.version <= head));
        let first = self.recent.front().map_or(0, |first| first.version);
        run.truncate(run.partition_point(|update| update.version < first));
        if run.last().is_some_and(|last| last.version + 1 == first) {
            for update in run.into_iter().rev() {
                self.bytes += update.bytes();
                self.recent.push_front(update);
            }
        }
        if newer.first().is_some_and(|next| next.version > head + 1) {
            // What lies between is no longer kept.
            self.clear();
        }
        newer.into_iter().for_each(|update| self.append(update));
        self.begin_pass();
    }

    /// Has [`Room::serve`] go through all members: some may be owed what they could not be sent before.
    pub fn begin_pass(&mut self) {
        if self.pass.left == 0 {
            (self.pass.is_behind, self.pass.is_replaying) = (false, false);
        }
        self.pass.left = self.members.len();
    }

    /// Is so much on its way to its members that they must have it before there is more?
    pub fn is_full(&self) -> bool {
        let much = (MAX_MISSED as usize / 2, MAX_MISSED_BYTES / 2);
        self.pass.left > 0 && (self.recent.len() > much.0 || self.bytes > much.1)
    }

    /// Members have come or gone, and others have their places: a pass under way is to find all of them.
    fn resume_pass(&mut self) {
        if self.pass.left > 0 {
            self.pass.left = self.members.len();
        }
    }

    /// Sends members what they are owed, as much as one turn allows, and takes out who has stalled over what it
    /// missed.
    pub fn serve(&mut self, now: Instant, turn: Turn) -> Served<S> {
        let recent = &*self.recent.make_contiguous();
        let head = recent.last().map(|head| head.version);
        let (mut versions, mut bytes, mut visits) = (0, 0, 0);
        let mut stalled = Vec::new();
        while self.pass.left > 0 && versions < turn.versions && bytes < turn.bytes && visits < turn.visits {
            if self.pass.next >= self.members.len() {
                self.pass.next = 0;
            }
            let Some((key, member)) = self.members.get_index_mut(self.pass.next) else { break };
            let before = self.tally.sent();
            self.pass.is_behind |= !member.send(recent, now, &mut self.tally);
            self.pass.is_replaying |= member.replaying.is_some() && Some(member.sent) < head;
            if member.has_stalled(recent, now) {
                stalled.push(*key);
            }
            let sent = self.tally.sent() - before;
            versions += sent;
            bytes += sent * recent.last().map_or(0, |head| head.bytes() as u64);
            visits += 1;
            self.pass.next += 1;
            self.pass.left -= 1;
        }
        let stalled: Vec<_> = stalled.into_iter().filter_map(|key| Some(self.leave(key)?.0)).collect();
        let is_done = self.pass.left == 0 || self.members.is_empty();
        let mut came_at = Vec::new();
        if is_done {
            self.pass.left = 0;
            self.is_replaying = self.pass.is_replaying;
            came_at = std::mem::take(&mut self.pass.came_at);
            self.forget(now);
        }
        Served { stalled, is_done, is_behind: self.pass.is_behind, came_at }
    }

    /// What it has sent since this was last asked.
    pub fn tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    fn append(&mut self, update: Update) {
        self.heard = self.heard.max(update.version);
        self.bytes += update.bytes();
        self.recent.push_back(update);
    }

    fn clear(&mut self) {
        self.recent.clear();
        self.bytes = 0;
    }

    fn is_remembering(&self, now: Instant) -> bool {
        self.remembered.is_some_and(|until| now < until)
    }

    /// Forgets what nobody waits for.
    pub fn forget(&mut self, now: Instant) {
        if self.pass.left > 0 {
            // Some have not had their turn yet.
            return;
        }
        let is_wanted = self.is_replaying || self.visitors.keys().any(Option::is_some);
        let (updates, bytes) = match is_wanted || self.is_remembering(now) {
            true => (MAX_MISSED as usize, MAX_MISSED_BYTES),
            false => (KEPT, KEPT_BYTES),
        };
        while self.recent.len() > 1 && (self.recent.len() > updates || self.bytes > bytes) {
            self.bytes -= self.recent.pop_front().map_or(0, |update| update.bytes());
        }
        self.recent.shrink_to(2 * self.recent.len());
    }
}

impl Tally {
    /// How many were sent.
    fn sent(&self) -> u64 {
        self.live + self.joining
    }

    /// Somebody who had `sent`, 0 if nothing, was sent this version and none between.
    fn newest(&mut self, sent: u64, version: u64) {
        if sent == 0 {
            self.joining += 1;
        } else {
            self.live += 1;
            self.conflated += version - sent - 1;
        }
    }
}

/// How many of these go at once.
fn run(updates: &[Update]) -> usize {
    let mut bytes = 0;
    let more = updates.iter().skip(1).take_while(|update| {
        bytes += update.bytes();
        bytes <= RUN_BYTES
    });
    1 + more.count()
}

impl<S: Sink> Member<S> {
    /// Sends what it is owed; `true` if it then has everything.
    fn send(&mut self, recent: &[Update], now: Instant, tally: &mut Tally) -> bool {
        let ([first, .., head] | [first @ head]) = recent else { return true };
        let is_replaying = self.replaying.is_some();
        if self.is_behind {
            let is_owed = self.sent < head.version;
            let mark = if is_owed { self.sink.send(std::slice::from_ref(head), now) } else { None };
            self.is_behind = is_owed && mark.is_none();
            if let Some(mark) = mark {
                tally.newest(self.sent, head.version);
                (self.sent, self.mark) = (head.version, mark);
            }
            return !self.is_behind;
        }
        // What lies between may be kept no longer: a replay ends there, and who keeps up gets what there is.
        let next = (self.sent + 1).saturating_sub(first.version);
        if is_replaying && self.sent + 1 < first.version {
            return false;
        }
        let mut owed = recent.get(next as usize..).unwrap_or_default();
        while !owed.is_empty() {
            let (run, rest) = owed.split_at(run(owed));
            let may_send = !is_replaying || self.sink.has_room();
            let Some(mark) = may_send.then(|| self.sink.send(run, now)).flatten() else {
                self.is_behind = !is_replaying;
                return false;
            };
            self.mark = mark;
            self.sent = run.last().map_or(self.sent, |last| last.version);
            *(if is_replaying { &mut tally.joining } else { &mut tally.live }) += run.len() as u64;
            owed = rest;
        }
        // Not before: what is new would find no room behind what it missed, and be left out.
        if is_replaying && self.sink.has_room() {
            self.replaying = None;
        }
        self.replaying.is_none()
    }

    /// Is it too slow to be sent every version it was promised?
    fn has_stalled(&mut self, recent: &[Update], now: Instant) -> bool {
        let Some((at, sent)) = &mut self.replaying else { return false };
        let is_owed_none = recent.last().is_some_and(|head| head.version <= self.sent);
        if *sent < self.sent || is_owed_none {
            (*at, *sent) = (now, self.sent);
        }
        let is_forgotten = recent.first().is_some_and(|first| first.version > self.sent + 1);
        is_forgotten || now.duration_since(*at) > REPLAY_TIMEOUT
    }
}

impl Update {
    /// `parts` are the JSON text of the body: before the message, the message and after it.
    pub fn new(version: u64, parts: [&str; 3]) -> Self {
        let (event, end) = (r#"42["chat","#, "]");
        let [before, message, _] = parts.map(str::len);
        let length = event.len() + parts.map(str::len).iter().sum::<usize>() + end.len();
        let mut frame = frames::text_header(length);
        frame.reserve_exact(length);
        let chat = frame.len() + event.len()..frame.len() + length - end.len();
        let message = chat.start + before..chat.start + before + message;
        for part in [event].into_iter().chain(parts).chain([end]) {
            frame.extend_from_slice(part.as_bytes());
        }
        Self { version, frame: frame.into(), chat, message, body: OnceLock::new() }
    }

    pub fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// The body of the event.
    pub fn chat(&self) -> &RawValue {
        self.body
            .get_or_init(|| serde_json::from_slice(&self.frame[self.chat.clone()]).expect("made of JSON"))
    }

    /// The message alone.
    pub fn message(&self) -> &str {
        str::from_utf8(&self.frame[self.message.clone()]).expect("made of text")
    }

    fn bytes(&self) -> usize {
        self.frame.len()
    }
}
