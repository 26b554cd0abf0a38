//! The sockets of the model: a queue of bounded length that a client reads, and what the client checks as it reads.

use std::{
    cell::{RefCell, RefMut},
    collections::{HashSet, VecDeque},
    rc::Rc,
    time::Instant,
};

use super::super::{Entry, Sink, Update};

/// An entry in the queue of a socket.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sent {
    /// The ack of a join: the kind of entry, and the head at that moment.
    Ack(Entry, u64),
    /// A version, and whether newer ones may have been left out before it because the client did not keep up.
    Version(u64, bool),
}

/// A socket's queue of bounded length. Acks always fit.
#[derive(Debug)]
pub struct Queue {
    waiting: VecDeque<Sent>,
    capacity: usize,
    /// The version up to which the client was promised every one when it joined.
    promised: u64,
    /// There was once no room for something.
    pub was_full: bool,
    /// There was no room for a version since the last one, and that was not because of a replay.
    is_behind: bool,
}

/// The sending end of a queue.
#[derive(Clone, Debug)]
pub struct Pipe(Rc<RefCell<Queue>>);

impl Pipe {
    pub fn new(capacity: usize) -> Self {
        let waiting = VecDeque::new();
        let queue = Queue { waiting, capacity, promised: 0, was_full: false, is_behind: false };
        Self(Rc::new(RefCell::new(queue)))
    }

    pub fn queue(&self) -> RefMut<'_, Queue> {
        self.0.borrow_mut()
    }

    pub fn is_same(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// Queues the ack of a join.
    pub fn ack(&self, entry: Entry, head: u64) {
        let mut queue = self.queue();
        queue.waiting.push_back(Sent::Ack(entry, head));
        (queue.promised, queue.is_behind) = (if let Entry::After(_) = entry { head } else { 0 }, false);
    }

    /// Drops everything that waits.
    pub fn clear(&self) {
        self.queue().waiting.clear();
    }
}

impl Queue {
    /// Counts the versions of a replay that wait.
    fn replayed(&self) -> usize {
        let is_replayed =
            |sent: &&Sent| matches!(sent, Sent::Version(version, _) if *version <= self.promised);
        self.waiting.iter().filter(is_replayed).count()
    }
}

impl Sink for Pipe {
    fn send(&self, updates: &[Update], _: Instant) -> Option<u64> {
        let mut queue = self.queue();
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
        let mut queue = self.queue();
        let has_room = 2 * queue.waiting.len() < queue.capacity;
        queue.was_full |= !has_room;
        has_room
    }
}

/// A client: its socket, and what it has received since the last ack.
#[derive(Debug)]
pub struct Client {
    pub pipe: Pipe,
    pub entry: Option<(Entry, u64)>,
    pub last: Option<u64>,
}

impl Client {
    pub fn new(capacity: usize) -> Self {
        Self { pipe: Pipe::new(capacity), entry: None, last: None }
    }

    /// Reads at most `count` entries, and checks that they are what was promised. `jumps`: the versions before which
    /// others can no longer be read.
    pub fn receive(&mut self, count: usize, jumps: &HashSet<u64>) {
        let Self { pipe, entry, last } = self;
        let mut queue = pipe.queue();
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
                    // Neither a replay nor what follows it is conflated before it is read. Later a version is left out
                    // only for a client that is slow, or where it can no longer be read.
                    let is_promised = matches!(how, Entry::After(_)) && last < head;
                    assert!(
                        version == last + 1 || !is_promised && (is_behind || jumps.contains(&version)),
                        "{version} after {last}: {how:?}, head {head}, {is_promised} {is_behind}"
                    );
                }
            }
            *last = Some(version);
        }
    }
}
