//! What one socket has sent and has not taken effect yet, in the order sent.
//!
//! The stack runs every event as a task of its own, so two events of one socket could overtake each
//! other. Here they wait for one another instead, without a task for sockets that send nothing.

use std::collections::VecDeque;

use parking_lot::Mutex;

/// Events of one socket that may wait.
const CAPACITY: usize = 256;

/// A queue that whoever finds it idle works off.
pub struct Inbox<T> {
    /// Written by the socket's event handlers, emptied by one of them at a time.
    state: Mutex<State<T>>,
}

struct State<T> {
    waiting: VecDeque<T>,
    busy: bool,
}

impl<T> Inbox<T> {
    /// Of a socket that is still connecting: what comes waits until [`Inbox::next`] is first asked.
    pub fn new() -> Self {
        Self { state: Mutex::new(State { waiting: VecDeque::new(), busy: true }) }
    }

    /// Puts an event behind those that wait. `true`: nobody is at it, and the caller must take over
    /// with [`Inbox::next`] until that returns `None`.
    ///
    /// # Errors
    /// The event, where too many wait.
    pub fn push(&self, event: T) -> Result<bool, T> {
        let mut state = self.state.lock();
        if state.waiting.len() >= CAPACITY {
            return Err(event);
        }
        state.waiting.push_back(event);
        Ok(!std::mem::replace(&mut state.busy, true))
    }

    /// The next event in the order sent.
    pub fn next(&self) -> Option<T> {
        let mut state = self.state.lock();
        let next = state.waiting.pop_front();
        if next.is_none() {
            state.busy = false;
            // An idle socket keeps no memory for it.
            state.waiting = VecDeque::new();
        }
        next
    }
}
