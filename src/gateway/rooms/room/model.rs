//! The room under every order of events: commits, hand-overs that are late or lost, reads that are slow or
//! fail, history that is removed, sockets that come, stall and go. What each of them has been sent is held
//! against what was promised.

use std::{
    cell::RefCell,
    collections::{HashSet, VecDeque},
    ops::RangeInclusive,
    rc::Rc,
};

use proptest::{collection::vec, prelude::*};

use super::*;

#[derive(Clone, Copy, Debug)]
enum Since {
    Absent,
    /// The last version seen.
    Seen,
    Behind(u64),
    Ahead(u64),
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Commit(u64),
    /// So many hand-overs reach the room, in order.
    Deliver(usize),
    /// The next hand-over is lost.
    Lose,
    Join(usize, Since),
    Leave(usize),
    /// The database looks.
    BeginRead,
    /// Its answer arrives.
    EndRead,
    FailRead,
    /// A client reads so much of what was sent.
    Receive(usize, usize),
    Tick,
    /// The room has a turn.
    Serve,
    /// History is removed up to so many before the head.
    Remove(u64),
    /// So many seconds pass.
    Wait(u64),
    /// The location is deleted; from now on it is about another one.
    Delete,
}

const CLIENTS: usize = 4;
/// So few that there is always somebody who has not had a turn.
const A_TURN: Turn = Turn { versions: 3, bytes: 40_000, visits: 2 };

fn step() -> impl Strategy<Value = Step> {
    let client = || 0..CLIENTS;
    let since = prop_oneof![
        2 => Just(Since::Absent),
        5 => Just(Since::Seen),
        2 => (0..1_200_u64).prop_map(Since::Behind),
        1 => (1..3_u64).prop_map(Since::Ahead),
    ];
    prop_oneof![
        8 => (1..4_u64).prop_map(Step::Commit),
        1 => (100..700_u64).prop_map(Step::Commit),
        8 => (1..6_usize).prop_map(Step::Deliver),
        1 => Just(Step::Deliver(1_000)),
        2 => Just(Step::Lose),
        6 => (client(), since).prop_map(|(client, since)| Step::Join(client, since)),
        2 => client().prop_map(Step::Leave),
        6 => Just(Step::BeginRead),
        6 => Just(Step::EndRead),
        1 => Just(Step::FailRead),
        8 => (client(), 1..10_usize).prop_map(|(client, count)| Step::Receive(client, count)),
        4 => client().prop_map(|client| Step::Receive(client, usize::MAX)),
        3 => Just(Step::Tick),
        6 => Just(Step::Serve),
        1 => (1..1_100_u64).prop_map(Step::Remove),
        2 => prop_oneof![1..4_u64, 10..13_u64].prop_map(Step::Wait),
        1 => Just(Step::Delete),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Sent {
    /// The ack of a join: how, and the head at that moment.
    Ack(Entry, u64),
    /// And whether newer ones may have been left out before it: the client did not keep up.
    Version(u64, bool),
}

/// A socket's queue of bounded length; acks always fit.
#[derive(Debug)]
struct Queue {
    waiting: VecDeque<Sent>,
    capacity: usize,
    /// Up to which version the client was promised every one when it joined.
    promised: u64,
    /// There was no room for something once.
    was_full: bool,
    /// Nor for a version since the last one, and that was not because of a replay.
    is_behind: bool,
}

impl Queue {
    fn new(capacity: usize) -> Self {
        Self { waiting: VecDeque::new(), capacity, promised: 0, was_full: false, is_behind: false }
    }

    /// What waits of a replay.
    fn replayed(&self) -> usize {
        let is_replayed =
            |sent: &&Sent| matches!(sent, Sent::Version(version, _) if *version <= self.promised);
        self.waiting.iter().filter(is_replayed).count()
    }
}

type Pipe = Rc<RefCell<Queue>>;

impl Sink for Pipe {
    fn send(&self, updates: &[Update], _: Instant) -> Option<u64> {
        let mut queue = self.borrow_mut();
        let fits = queue.waiting.len() < queue.capacity;
        if fits {
            for update in updates {
                let is_behind = std::mem::take(&mut queue.is_behind);
                queue.waiting.push_back(Sent::Version(update.version, is_behind));
            }
        } else {
            queue.was_full = true;
            queue.is_behind |= 2 * queue.replayed() <= queue.capacity;
        }
        fits.then_some(0)
    }

    fn has_room(&self) -> bool {
        let mut queue = self.borrow_mut();
        let has_room = 2 * queue.waiting.len() < queue.capacity;
        queue.was_full |= !has_room;
        has_room
    }
}

#[derive(Debug)]
struct Client {
    pipe: Pipe,
    /// Received since the last ack.
    entry: Option<(Entry, u64)>,
    last: Option<u64>,
}

/// A join that waits for the database.
#[derive(Debug)]
struct Waiting {
    client: usize,
    since: Option<u64>,
    /// The newest version committed when they came.
    committed: u64,
    /// Nothing had been read for the room then, nor was about to be.
    cold: bool,
    failed: bool,
}

#[derive(Debug)]
struct World {
    now: Instant,
    head: u64,
    /// The oldest version history has.
    oldest: u64,
    events: VecDeque<u64>,
    room: Room<usize, Pipe>,
    clients: Vec<Client>,
    waiting: VecDeque<Waiting>,
    /// What a read under way will answer, and whether for somebody who waits.
    read: Option<(RangeInclusive<u64>, bool)>,
    /// Where runs of versions began that history or the bounds have cut short.
    jumps: HashSet<u64>,
}

/// Some versions are large.
fn update(version: u64) -> Update {
    let length = if version % 50 < 3 { 30_000 } else { 0 };
    Update::new(version, ["", &"x".repeat(length), ""])
}

/// Bytes of the versions after `since` up to `head`.
fn missed_bytes(since: u64, head: u64) -> usize {
    (since + 1..=head).map(|version| update(version).bytes()).sum()
}

impl World {
    fn new(capacities: &[usize]) -> Self {
        let clients = capacities.iter().map(|&capacity| Client {
            pipe: Rc::new(RefCell::new(Queue::new(capacity))),
            entry: None,
            last: None,
        });
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
                let heard = self.events.drain(..count.min(self.events.len())).map(update);
                if self.room.is_empty() {
                    drop(heard);
                } else {
                    let heard = Vec::from_iter(heard);
                    if self.room.is_full() {
                        self.serve(WHOLE_TURN);
                    }
                    self.room.hear(heard.into_iter().map(|update| (update, None)));
                }
            }
            Step::Serve => self.serve(A_TURN),
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
        self.room.hear([(update(self.head + 1), None)]);
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
        let cold = !self.room.was_read && self.read.is_none();
        self.room.arrive(since);
        let waiting = Waiting { client, since, committed: self.head, cold, failed: false };
        match self.room.entry(since, false) {
            Entry::Unknown => self.waiting.push_back(waiting),
            entry => self.enter(waiting, entry),
        }
    }

    fn enter(&mut self, waiting: Waiting, entry: Entry) {
        let Waiting { client, since, committed, cold, failed } = waiting;
        let head = self.room.head().unwrap();
        assert!(!cold || failed || head >= committed, "an old snapshot of {head}");
        match (entry, since) {
            (Entry::Current, Some(since)) => {
                let is_ahead = since > head;
                let is_much =
                    head - since.min(head) > MAX_MISSED || missed_bytes(since, head) > MAX_MISSED_BYTES;
                let is_lost = is_much || since + 1 < self.oldest;
                assert!(is_ahead || is_lost || failed, "not recovered from {since} to {head}");
                // Whoever has what was committed and answered is not sent back.
                assert!(!is_ahead || failed || since > committed, "sent back from {since} to {head}");
            }
            (Entry::After(after), since) => {
                assert_eq!(Some(after), since);
                assert!(head - after <= MAX_MISSED && missed_bytes(after, head) <= MAX_MISSED_BYTES);
            }
            (entry, _) => assert_eq!(entry, Entry::Current),
        }
        let pipe = self.clients[client].pipe.clone();
        let mut queue = pipe.borrow_mut();
        queue.waiting.push_back(Sent::Ack(entry, head));
        (queue.promised, queue.is_behind) = (if let Entry::After(_) = entry { head } else { 0 }, false);
        drop(queue);
        self.room.enter(client, pipe, entry, self.now);
        self.room.depart(since, self.now);
    }

    fn leave(&mut self, client: usize) {
        self.room.leave(client);
        // The next join is of a new connection.
        self.receive(client, usize::MAX);
        self.clients[client].entry = None;
    }

    fn begin_read(&mut self) {
        if self.read.is_none() && (!self.waiting.is_empty() || self.room.lacks()) {
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
            self.room.learn(run.map(update).collect(), self.now);
        }
        // The first has read; the others look whether that was enough for them.
        let mut others = std::mem::take(&mut self.waiting);
        let reader = others.pop_front_if(|_| for_waiting).map(|waiting| Waiting { failed: !well, ..waiting });
        for (waiting, informed) in
            reader.into_iter().map(|w| (w, true)).chain(others.into_iter().map(|w| (w, false)))
        {
            match self.room.entry(waiting.since, informed) {
                // Refused: the database did not answer.
                Entry::Unknown if informed => self.room.depart(waiting.since, self.now),
                Entry::Unknown => self.waiting.push_back(waiting),
                entry => self.enter(waiting, entry),
            }
        }
    }

    fn tick(&mut self) {
        self.room.begin_pass();
        while self.room.pass.left > 0 {
            self.serve(A_TURN);
        }
        for member in self.room.members.values() {
            let taken = member.replaying.is_none_or(|(at, _)| self.now - at <= REPLAY_TIMEOUT);
            assert!(taken, "a replay that goes nowhere");
        }
    }

    fn serve(&mut self, turn: Turn) {
        for pipe in self.room.serve(self.now, turn).stalled {
            assert!(pipe.borrow().was_full || !self.jumps.is_empty(), "nobody else is too slow");
            let client = self.clients.iter().position(|client| Rc::ptr_eq(&client.pipe, &pipe)).unwrap();
            self.leave(client);
        }
    }

    /// A client reads, and finds what it was promised.
    fn receive(&mut self, client: usize, count: usize) {
        let Client { pipe, entry, last } = &mut self.clients[client];
        let mut queue = pipe.borrow_mut();
        let count = count.min(queue.waiting.len());
        let was_full = queue.was_full;
        for sent in queue.waiting.drain(..count) {
            let (version, is_behind) = match sent {
                Sent::Ack(how, head) => {
                    *entry = Some((how, head));
                    *last = match how {
                        Entry::After(since) => Some(since),
                        _ => None,
                    };
                    continue;
                }
                Sent::Version(version, is_behind) => (version, is_behind),
            };
            let (how, head) = entry.expect("an ack before everything else");
            match *last {
                None => assert!(
                    version == head || version > head && was_full,
                    "{head} was current, sent {version}"
                ),
                Some(last) => {
                    assert!(version > last, "{version} after {last}");
                    // A replay is never conflated, nor what follows it before it is read; later only who is slow
                    // is spared some, or what cannot be read is.
                    let is_promised = matches!(how, Entry::After(_)) && last < head;
                    assert!(
                        version == last + 1 || !is_promised && (is_behind || self.jumps.contains(&version)),
                        "{version} after {last}: client {client}, {how:?}, head {head}, {is_promised} {is_behind}"
                    );
                }
            }
            *last = Some(version);
        }
    }

    /// Quiet: everything arrives, everybody reads.
    fn settle(&mut self) {
        self.end_read(true);
        self.take(Step::Commit(1));
        self.take(Step::Deliver(usize::MAX));
        while !self.waiting.is_empty() || self.room.lacks() {
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
    let pipe = Pipe::new(RefCell::new(Queue::new(2)));
    room.learn(vec![update(4)], now);
    room.enter(1, pipe.clone(), Entry::Current, now);
    let hear = |room: &mut Room<usize, Pipe>, version| {
        room.hear([(update(version), None)]);
        assert!(room.serve(now, TURN).is_done);
    };
    for version in 5..=8 {
        hear(&mut room, version);
    }
    assert_eq!(room.tally(), Tally { live: 1, joining: 1, conflated: 0 });
    pipe.borrow_mut().waiting.clear();
    hear(&mut room, 9);
    assert_eq!(room.tally(), Tally { live: 1, joining: 0, conflated: 3 }, "6 to 8 were left out");
    room.enter(2, Pipe::new(RefCell::new(Queue::new(16))), Entry::After(5), now);
    assert_eq!(room.tally(), Tally { live: 0, joining: 4, conflated: 0 });
    hear(&mut room, 10);
    assert_eq!(room.tally(), Tally { live: 2, joining: 0, conflated: 0 });
    assert_eq!(room.tally(), Tally::default(), "asked for once");
}
