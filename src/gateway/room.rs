//! One room: what it remembers of its location, who is in it, and up to where each of them has it.
//!
//! Snapshot, stream and recovery meet here. Decisions only: no locks, no tasks, no database, so that the
//! model in `room/model.rs` can put every order of events to it. `rooms.rs` does the rest.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::Hash,
    ops::Range,
    sync::OnceLock,
    time::{Duration, Instant},
};

use serde_json::value::RawValue;

use super::frames;

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

/// A committed version, as its room is sent it.
#[derive(Debug)]
pub struct Update {
    pub version: u64,
    /// A WebSocket frame with the event `chat` and its body `{userId, message, roomName, version}`.
    frame: Box<[u8]>,
    /// Where in it the body is, and in that the message.
    chat: Range<usize>,
    message: Range<usize>,
    /// The body, once somebody wants it alone.
    body: OnceLock<Box<RawValue>>,
}

/// The way to a member.
pub trait Sink {
    /// Sends all of these or none; `false`: it is full for now. `now`: for a whole room the clock is looked at once.
    fn send(&self, updates: &[Update], now: Instant) -> bool;

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
    members: HashMap<K, Member<S>>,
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
    /// The newest version it was sent.
    sent: u64,
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
            members: HashMap::new(),
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

    /// How many are in it.
    pub fn len(&self) -> usize {
        self.members.len()
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
        let mut member = Member { sink, sent, is_behind, replaying };
        let is_current = member.send(self.recent.make_contiguous(), now, &mut self.tally);
        self.is_replaying |= !is_current;
        self.members.insert(key, member);
        is_current
    }

    /// Takes a member out.
    pub fn leave(&mut self, member: K) -> Option<S> {
        self.members.remove(&member).map(|member| member.sink)
    }

    /// Takes out whoever may no longer be in it.
    pub fn expel(&mut self, is_out: impl Fn(&S) -> bool) -> Vec<S> {
        let gone = self.members.extract_if(|_, member| is_out(&member.sink));
        gone.map(|(_, member)| member.sink).collect()
    }

    /// Ends the room; returns who was in it.
    pub fn close(&mut self) -> impl Iterator<Item = S> {
        self.closed = true;
        self.members.drain().map(|(_, member)| member.sink)
    }

    /// Takes what are said to be the next versions. `false`: somebody could not be sent all of them yet.
    pub fn hear(&mut self, updates: impl IntoIterator<Item = Update>, now: Instant) -> bool {
        for update in updates {
            self.heard = self.heard.max(update.version);
            if self.head().is_none_or(|head| update.version == head + 1) {
                self.append(update);
            }
        }
        self.send(now)
    }

    /// This version is committed. `true`: the room lacks it.
    pub fn expect(&mut self, version: u64) -> bool {
        self.heard = self.heard.max(version);
        self.lacks()
    }

    /// Takes what the database said: versions ascending without a gap, the last the newest then. `false`:
    /// somebody could not be sent everything yet.
    pub fn learn(&mut self, mut run: Vec<Update>, now: Instant) -> bool {
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
        self.send(now)
    }

    /// Sends those who could not be sent everything what they are owed, and takes out who has stalled
    /// over what it missed. Returns those, and whether all others have everything.
    pub fn catch_up(&mut self, now: Instant) -> (Vec<S>, bool) {
        let all = self.send(now);
        let stalled = self.members.extract_if(|_, member| member.has_stalled(&self.recent, now));
        (stalled.map(|(_, member)| member.sink).collect(), all)
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

    /// Sends every member what it is owed; `false`: somebody could not be sent everything.
    fn send(&mut self, now: Instant) -> bool {
        let (mut all, head) = (true, self.head());
        let recent = &*self.recent.make_contiguous();
        self.is_replaying = false;
        for member in self.members.values_mut() {
            all &= member.send(recent, now, &mut self.tally);
            self.is_replaying |= member.replaying.is_some() && Some(member.sent) < head;
        }
        self.forget(now);
        all
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
            self.is_behind = is_owed && !self.sink.send(std::slice::from_ref(head), now);
            if is_owed && !self.is_behind {
                tally.newest(self.sent, head.version);
                self.sent = head.version;
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
            if is_replaying && !self.sink.has_room() || !self.sink.send(run, now) {
                self.is_behind = !is_replaying;
                return false;
            }
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
    fn has_stalled(&mut self, recent: &VecDeque<Update>, now: Instant) -> bool {
        let Some((at, sent)) = &mut self.replaying else { return false };
        let is_owed_none = recent.back().is_some_and(|head| head.version <= self.sent);
        if *sent < self.sent || is_owed_none {
            (*at, *sent) = (now, self.sent);
        }
        let is_forgotten = recent.front().is_some_and(|first| first.version > self.sent + 1);
        is_forgotten || now.duration_since(*at) > REPLAY_TIMEOUT
    }
}

impl Update {
    /// `parts` are the JSON text of the body: before the message, the message and after it.
    pub fn new(version: u64, parts: [&str; 3]) -> Self {
        let (event, end) = (r#"42["chat","#, "]");
        let [before, message, _] = parts.map(str::len);
        let length = event.len() + parts.map(str::len).iter().sum::<usize>() + end.len();
        let mut frame = frames::header(length);
        frame.reserve_exact(length);
        let chat = frame.len() + event.len()..frame.len() + length - end.len();
        let message = chat.start + before..chat.start + before + message;
        for part in [event].into_iter().chain(parts).chain([end]) {
            frame.extend_from_slice(part.as_bytes());
        }
        Self { version, frame: frame.into(), chat, message, body: OnceLock::new() }
    }

    pub fn frame(&self) -> &[u8] {
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
