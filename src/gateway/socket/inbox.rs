//! The events of one socket that have not taken effect yet, in the order sent.
//!
//! The library runs every event as a task of its own, so two events of one socket could overtake each other. Here they
//! wait for one another instead, without a task for sockets that send nothing.

use std::collections::VecDeque;

use parking_lot::Mutex;

/// Limits the events of one socket that wait.
const CAPACITY: usize = 256;

/// A queue of events. The task that finds it idle handles what is in it.
pub struct Inbox<T> {
    /// The events. Written by the socket's event handlers, and emptied by one of them at a time.
    state: Mutex<State<T>>,
}

struct State<T> {
    waiting: VecDeque<T>,
    /// Some task handles the events.
    is_busy: bool,
}

impl<T> Inbox<T> {
    /// Creates the inbox of a socket that is connecting. Events wait until [`Inbox::next`] is first called.
    pub fn new() -> Self {
        Self { state: Mutex::new(State { waiting: VecDeque::new(), is_busy: true }) }
    }

    /// Adds an event. It returns `true` if no task handles the events; then the caller must, by calling
    /// [`Inbox::next`] until that returns `None`.
    ///
    /// # Errors
    /// The event is returned if too many wait.
    pub fn push(&self, event: T) -> Result<bool, T> {
        let mut state = self.state.lock();
        if state.waiting.len() >= CAPACITY {
            return Err(event);
        }
        state.waiting.push_back(event);
        Ok(!std::mem::replace(&mut state.is_busy, true))
    }

    /// Takes the next event in the order sent.
    pub fn next(&self) -> Option<T> {
        let mut state = self.state.lock();
        let next = state.waiting.pop_front();
        if next.is_none() {
            state.is_busy = false;
            // An idle socket keeps no memory for its queue.
            state.waiting = VecDeque::new();
        }
        next
    }
}
