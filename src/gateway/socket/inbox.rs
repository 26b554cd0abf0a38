//! The events of one socket that have not taken effect yet, in the order sent.
//!
//! The library runs every event as a task of its own, so two of one socket could overtake each other. Here they wait
//! for one another, without a task for sockets that send nothing.

use std::collections::VecDeque;

use parking_lot::Mutex;

/// Limits the events of one socket that wait.
const CAPACITY: usize = 256;

/// A queue of events. The task that finds it idle handles what is in it.
pub struct Inbox<T> {
    /// The events that wait while some task handles them, `None` if none does. Written by the socket's event handlers,
    /// and emptied by one of them at a time.
    waiting: Mutex<Option<VecDeque<T>>>,
}

impl<T> Inbox<T> {
    /// Creates the inbox of a socket that is connecting. Events wait until [`Inbox::next`] is first called.
    pub fn new() -> Self {
        Self { waiting: Mutex::new(Some(VecDeque::new())) }
    }

    /// Adds an event. It returns `true` if no task handles the events; then the caller must, by calling
    /// [`Inbox::next`] until that returns `None`.
    ///
    /// # Errors
    /// The event is returned if too many wait.
    pub fn push(&self, event: T) -> Result<bool, T> {
        let mut waiting = self.waiting.lock();
        let is_idle = waiting.is_none();
        let queue = waiting.get_or_insert_default();
        if queue.len() >= CAPACITY {
            return Err(event);
        }
        queue.push_back(event);
        Ok(is_idle)
    }

    /// Takes the next event in the order sent.
    pub fn next(&self) -> Option<T> {
        let mut waiting = self.waiting.lock();
        let next = waiting.as_mut()?.pop_front();
        if next.is_none() {
            // An idle socket keeps no memory for its queue.
            *waiting = None;
        }
        next
    }
}
