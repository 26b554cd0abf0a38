//! The room under every order of events: commits, updates that are late or lost, reads that are slow or fail, history
//! that is removed, sockets that come, stall and go.
//!
//! The clients in `client.rs` hold what each of them is sent against what it was promised. `steps.rs` has the events.

mod client;
mod steps;

use std::{
    collections::{HashSet, VecDeque},
    ops::RangeInclusive,
};

use proptest::{collection::vec, prelude::*};

use self::{
    client::{Client, Pipe},
    steps::{CLIENTS, Since, Step, step},
};
use super::*;

/// A turn so short that some members always wait for theirs.
const SHORT_TURN: Turn = Turn { versions: 3, bytes: 40_000, visits: 2 };

/// A join that waits for the database.
#[derive(Debug)]
struct Waiting {
    client: usize,
    since: Option<u64>,
    /// The newest version that was committed when the client came.
    committed: u64,
    /// The room had read nothing then, and no read was under way.
    is_cold: bool,
    failed: bool,
}

/// A room with everything around it: the database, the channel of events and the clients.
#[derive(Debug)]
struct World {
    now: Instant,
    head: u64,
    /// The oldest version that history has.
    oldest: u64,
    events: VecDeque<u64>,
    room: Room<usize, Pipe>,
    clients: Vec<Client>,
    waiting: VecDeque<Waiting>,
    /// The versions that a read under way will return, and whether it is for a join that waits.
    read: Option<(RangeInclusive<u64>, bool)>,
    /// The first version of each run that history or the bounds have cut short.
    jumps: HashSet<u64>,
}

/// Makes an update. Some are large.
fn update(version: u64) -> Update {
    let length = if version % 50 < 3 { 30_000 } else { 0 };
    Update::new(version, ["", &"x".repeat(length), ""])
}

/// Returns the bytes of the versions after `since` up to `head`.
fn missed_bytes(since: u64, head: u64) -> usize {
    (since + 1..=head).map(|version| update(version).bytes()).sum()
}

impl World {
    fn new(capacities: &[usize]) -> Self {
        let clients = capacities.iter().map(|&capacity| Client::new(capacity));
        Self {
            now: Instant::now(),
            head: 1,
            oldest: 1,
            events: VecDeque::new(),
            room: Room::default(),
            clients: clients.collect(),
            waiting: VecDeque::new(),
            read: None,
            jumps: HashSet::new(),
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Commit(count) => {
                for _ in 0..count {
                    self.head += 1;
                    self.events.push_back(self.head);
                }
            }
            Step::Deliver(count) => {
                let updates = self.events.drain(..count.min(self.events.len())).map(update);
                if self.room.is_empty() {
                    drop(updates);
                } else {
                    let updates = Vec::from_iter(updates);
                    if self.room.is_full() {
                        self.serve(WHOLE_TURN);
                    }
                    self.room.on_updates(updates.into_iter().map(|update| (update, None)));
                }
            }
            Step::Serve => self.serve(SHORT_TURN),
            Step::Lose => drop(self.events.pop_front()),
            Step::Join(client, since) => self.join(client, since),
            Step::Leave(client) => self.leave(client),
            Step::BeginRead => self.begin_read(),
            Step::EndRead => self.end_read(true),
            Step::FailRead => self.end_read(false),
            Step::Receive(client, count) => self.receive(client, count),
            Step::Tick => self.tick(),
            Step::Remove(keep) => self.oldest = self.oldest.max(self.head.saturating_sub(keep)),
            Step::Wait(seconds) => self.now += Duration::from_secs(seconds),
            Step::Delete => self.delete(),
        }
        if self.room.is_empty() {
            self.room = Room::default();
        }
    }

    fn delete(&mut self) {
        let members = (0..CLIENTS).filter(|client| self.room.member(*client).is_some()).count();
        assert_eq!(self.room.close().count(), members);
        assert_eq!(self.room.entry(None, true), Entry::Closed);
        assert_eq!(self.room.entry(Some(0), false), Entry::Closed);
        self.room.on_updates([(update(self.head + 1), None)]);
        for client in 0..CLIENTS {
            self.leave(client);
            self.clients[client].last = None;
        }
        self.room = Room::default();
        self.waiting.clear();
        self.events.clear();
        self.jumps.clear();
        self.read = None;
        (self.head, self.oldest) = (1, 1);
    }

    fn join(&mut self, client: usize, since: Since) {
        if self.waiting.iter().any(|waiting| waiting.client == client) {
            return;
        }
        let since = match since {
            Since::Absent => None,
            Since::Seen => Some(self.clients[client].last.unwrap_or(0)),
            Since::Behind(count) => Some(self.head.saturating_sub(count)),
            Since::Ahead(count) => Some(self.head + count),
        };
        let is_cold = !self.room.was_read && self.read.is_none();
        self.room.add_entrant(since);
        let waiting = Waiting { client, since, committed: self.head, is_cold, failed: false };
        match self.room.entry(since, false) {
            Entry::NeedsRead => self.waiting.push_back(waiting),
            entry => self.enter(waiting, entry),
        }
    }

    fn enter(&mut self, waiting: Waiting, entry: Entry) {
        let Waiting { client, since, committed, is_cold, failed } = waiting;
        let head = self.room.head().unwrap();
        assert!(!is_cold || failed || head >= committed, "an old snapshot of {head}");
        match (entry, since) {
            (Entry::Current, Some(since)) => {
                let is_ahead = since > head;
                let is_much =
                    head - since.min(head) > MAX_MISSED || missed_bytes(since, head) > MAX_MISSED_BYTES;
                let is_lost = is_much || since + 1 < self.oldest;
                assert!(is_ahead || is_lost || failed, "not recovered from {since} to {head}");
                // A client that has what was committed and answered is not sent back.
                assert!(!is_ahead || failed || since > committed, "sent back from {since} to {head}");
            }
            (Entry::After(after), since) => {
                assert_eq!(Some(after), since);
                assert!(head - after <= MAX_MISSED && missed_bytes(after, head) <= MAX_MISSED_BYTES);
            }
            (entry, _) => assert_eq!(entry, Entry::Current),
        }
        let pipe = self.clients[client].pipe.clone();
        pipe.ack(entry, head);
        self.room.enter(client, pipe, entry, self.now);
        self.room.remove_entrant(since, self.now);
    }

    fn leave(&mut self, client: usize) {
        self.room.leave(client);
        // The next join comes over a new connection.
        self.receive(client, usize::MAX);
        self.clients[client].entry = None;
    }

    fn begin_read(&mut self) {
        if self.read.is_none() && (!self.waiting.is_empty() || self.room.has_gap()) {
            let from = self.room.read_from(self.now).unwrap_or(self.head);
            let oldest = self.head.saturating_sub(MAX_MISSED).max(self.oldest);
            if from < oldest {
                self.jumps.insert(oldest);
            }
            self.read = Some((from.clamp(oldest, self.head)..=self.head, !self.waiting.is_empty()));
        }
    }

    fn end_read(&mut self, well: bool) {
        let Some((run, for_waiting)) = self.read.take() else { return };
        if well && !self.room.is_empty() {
            self.room.on_read(run.map(update).collect(), self.now);
        }
        // The first join has read; the others check whether that was enough for them.
        let mut others = std::mem::take(&mut self.waiting);
        let reader = others.pop_front_if(|_| for_waiting).map(|waiting| Waiting { failed: !well, ..waiting });
        for (waiting, was_asked) in
            reader.into_iter().map(|w| (w, true)).chain(others.into_iter().map(|w| (w, false)))
        {
            match self.room.entry(waiting.since, was_asked) {
                // The join is refused, because the database did not answer.
                Entry::NeedsRead if was_asked => self.room.remove_entrant(waiting.since, self.now),
                Entry::NeedsRead => self.waiting.push_back(waiting),
                entry => self.enter(waiting, entry),
            }
        }
    }

    fn tick(&mut self) {
        self.room.begin_pass();
        while self.room.pass.left > 0 {
            self.serve(SHORT_TURN);
        }
        for member in self.room.members.values() {
            assert!(!member.is_overdue(self.now), "a replay that goes nowhere");
        }
    }

    fn serve(&mut self, turn: Turn) {
        for pipe in self.room.serve(self.now, turn).stalled {
            assert!(pipe.queue().was_full || !self.jumps.is_empty(), "nobody else is too slow");
            let client = self.clients.iter().position(|client| client.pipe.is_same(&pipe)).unwrap();
            self.leave(client);
        }
    }

    /// A client reads, and checks what it was promised.
    fn receive(&mut self, client: usize, count: usize) {
        self.clients[client].receive(count, &self.jumps);
    }

    /// Lets everything arrive and everybody read, and checks that all members are current.
    fn settle(&mut self) {
        self.end_read(true);
        self.take(Step::Commit(1));
        self.take(Step::Deliver(usize::MAX));
        while !self.waiting.is_empty() || self.room.has_gap() {
            self.begin_read();
            self.end_read(true);
        }
        for _ in 0..=self.head {
            for client in 0..CLIENTS {
                self.receive(client, usize::MAX);
            }
            self.tick();
        }
        for (client, state) in self.clients.iter().enumerate() {
            if self.room.member(client).is_some() {
                assert_eq!(state.last, Some(self.head), "client {client} is not current");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn everybody_is_sent_what_was_promised(
        capacities in vec(prop_oneof![2 => 1..8_usize, 1 => 50..100_usize, 2 => Just(usize::MAX)], CLIENTS),
        steps in vec(step(), 1..150),
    ) {
        let mut world = World::new(&capacities);
        for step in steps {
            world.take(step);
        }
        world.settle();
    }
}

#[test]
fn what_was_sent_and_what_was_left_out_is_tallied() {
    let now = Instant::now();
    let mut room = Room::default();
    let pipe = Pipe::new(2);
    room.on_read(vec![update(4)], now);
    room.enter(1, pipe.clone(), Entry::Current, now);
    let update_room = |room: &mut Room<usize, Pipe>, version| {
        room.on_updates([(update(version), None)]);
        assert!(room.serve(now, TURN).is_done);
    };
    for version in 5..=8 {
        update_room(&mut room, version);
    }
    assert_eq!(room.take_tally(), Tally { live: 1, joining: 1, conflated: 0 });
    pipe.clear();
    update_room(&mut room, 9);
    assert_eq!(room.take_tally(), Tally { live: 1, joining: 0, conflated: 3 }, "6 to 8 were left out");
    room.enter(2, Pipe::new(16), Entry::After(5), now);
    assert_eq!(room.take_tally(), Tally { live: 0, joining: 4, conflated: 0 });
    update_room(&mut room, 10);
    assert_eq!(room.take_tally(), Tally { live: 2, joining: 0, conflated: 0 });
    assert_eq!(room.take_tally(), Tally::default(), "asked for once");
}
