//! A member of a room: the version it was sent last, and what it is still owed.

use std::time::{Duration, Instant};

use super::update::Update;

/// Limits what is sent to a member at a time, if that is more than one update.
const RUN_BYTES: usize = 8 * 1024;
/// A member that is owed what it missed and takes none of it for this long has stalled.
const REPLAY_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends updates to one room member.
pub trait Sink {
    /// Sends all of these updates or none. It returns a mark behind them, by which it can be told whether they were
    /// read, or `None` while the member takes nothing. The caller passes `now`, so that the clock is read once for a
    /// whole room.
    fn send(&self, updates: &[Update], now: Instant) -> Option<u64>;

    /// Checks whether at least half of the window of unread bytes is free.
    fn has_room(&self) -> bool;
}

/// Counts the versions that went to members, one for each member.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    /// Versions sent as they were committed.
    pub live: u64,
    /// Versions sent to somebody who has joined.
    pub joining: u64,
    /// Versions that were left out because a newer one was sent instead.
    pub conflated: u64,
}

#[derive(Debug)]
pub struct Member<S> {
    pub sink: S,
    /// The newest version that the member was sent; 0 if it was sent none.
    pub sent: u64,
    /// The sink's mark behind that version.
    pub mark: u64,
    /// There is a newer version that could not be sent. Of those it is sent only the newest.
    is_behind: bool,
    /// The member is owed every version, not only the newest, until it has read most of them.
    replay: Option<Replay>,
}

/// The progress of a member that is sent every version it has missed.
#[derive(Debug)]
struct Replay {
    /// The time at which the member was last seen to take something, or to be owed nothing.
    progress_at: Instant,
    version: u64,
}

impl Tally {
    pub fn sent(&self) -> u64 {
        self.live + self.joining
    }
}

fn run_length(updates: &[Update]) -> usize {
    let mut bytes = 0;
    let more = updates.iter().skip(1).take_while(|update| {
        bytes += update.bytes();
        bytes <= RUN_BYTES
    });
    1 + more.count()
}

impl<S: Sink> Member<S> {
    /// Creates a member that is owed every version after `since`, or (`None`) the newest version. `mark`: see
    /// [`Member::mark`].
    pub fn new(sink: S, mark: u64, since: Option<u64>, now: Instant) -> Self {
        let replay = since.map(|version| Replay { progress_at: now, version });
        Self { sink, sent: since.unwrap_or(0), mark, is_behind: since.is_none(), replay }
    }

    pub fn is_replaying(&self) -> bool {
        self.replay.is_some()
    }

    /// Checks whether the member has taken nothing of its replay for too long.
    pub fn is_overdue(&self, now: Instant) -> bool {
        self.replay.as_ref().is_some_and(|replay| now.duration_since(replay.progress_at) > REPLAY_TIMEOUT)
    }

    /// Sends what the member is owed. It returns `true` if the member then has everything.
    pub fn send(&mut self, recent: &[Update], now: Instant, tally: &mut Tally) -> bool {
        let ([first, .., head] | [first @ head]) = recent else { return true };
        if self.is_behind {
            return self.send_newest(head, now, tally);
        }
        let is_replaying = self.is_replaying();
        if is_replaying && self.sent + 1 < first.version {
            // What lies between is no longer kept, so the replay ends here.
            return false;
        }
        let next = (self.sent + 1).saturating_sub(first.version);
        let mut owed = recent.get(next as usize..).unwrap_or_default();
        while !owed.is_empty() {
            let (run, rest) = owed.split_at(run_length(owed));
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
        // The replay ends only now: behind what was missed, new versions would find no room and be left out.
        if is_replaying && self.sink.has_room() {
            self.replay = None;
        }
        self.replay.is_none()
    }

    /// Sends the newest version, unless the member has it.
    fn send_newest(&mut self, head: &Update, now: Instant, tally: &mut Tally) -> bool {
        let is_owed = self.sent < head.version;
        let mark = if is_owed { self.sink.send(std::slice::from_ref(head), now) } else { None };
        self.is_behind = is_owed && mark.is_none();
        if let Some(mark) = mark {
            if self.sent == 0 {
                tally.joining += 1;
            } else {
                tally.live += 1;
                tally.conflated += head.version - self.sent - 1;
            }
            (self.sent, self.mark) = (head.version, mark);
        }
        !self.is_behind
    }

    /// Records whether the member has taken something of its replay since the last time.
    pub fn record_progress(&mut self, recent: &[Update], now: Instant) {
        let Some(replay) = &mut self.replay else { return };
        let is_owed_nothing = recent.last().is_some_and(|head| head.version <= self.sent);
        if replay.version < self.sent || is_owed_nothing {
            *replay = Replay { progress_at: now, version: self.sent };
        }
    }

    /// Checks whether the member is too slow to be sent every version that it was promised.
    pub fn has_stalled(&self, recent: &[Update], now: Instant) -> bool {
        let is_forgotten = recent.first().is_some_and(|first| first.version > self.sent + 1);
        self.is_replaying() && is_forgotten || self.is_overdue(now)
    }
}
