//! The WebSockets of one caller read in turns, and everybody else's work goes between the turns.
//!
//! Otherwise a thousand sockets that speak at once would all be served before a request that came a moment later. Here
//! all sockets of a caller together take in a few frames in a round, which lasts until everything else that was to run
//! has run. Nobody holds anything for longer, so a socket that is gone holds up nobody.

use std::{collections::VecDeque, sync::Arc, task::Waker};

use parking_lot::Mutex;
use tokio::task::yield_now;

/// The sockets of one caller read so many frames in a round; the last read may exceed it.
const FRAMES: usize = 16;
/// So many sockets are woken for a round; more would find nothing left.
const WOKEN: usize = 4;

/// The round of one caller.
#[derive(Debug)]
pub struct Readers(Mutex<Round>);

#[derive(Debug)]
struct Round {
    /// Frames that may still be taken in.
    left: usize,
    /// Sockets that wait for the next round, each once for each time it asked.
    waiting: VecDeque<Waker>,
    /// A task is waiting to begin the next round.
    is_closing: bool,
}

impl Default for Readers {
    fn default() -> Self {
        Self(Mutex::new(Round { left: FRAMES, waiting: VecDeque::new(), is_closing: false }))
    }
}

impl Readers {
    /// Checks whether a socket may read now. If not, the socket is woken when it may ask again.
    pub fn may_read(self: &Arc<Self>, socket: &Waker) -> bool {
        let round = &mut *self.0.lock();
        if round.left > 0 {
            return true;
        }
        round.waiting.push_back(socket.clone());
        if !std::mem::replace(&mut round.is_closing, true) {
            tokio::spawn(end_rounds(self.clone()));
        }
        false
    }

    /// Notes that a socket has read so many frames.
    pub fn record(&self, frames: usize) {
        let round = &mut *self.0.lock();
        round.left = round.left.saturating_sub(frames);
    }
}

/// Begins one round after the other as long as somebody waits for one.
async fn end_rounds(readers: Arc<Readers>) {
    loop {
        yield_now().await;
        let woken: Vec<_> = {
            let round = &mut *readers.0.lock();
            round.left = FRAMES;
            if round.waiting.is_empty() {
                round.is_closing = false;
                return;
            }
            let next = round.waiting.len().min(WOKEN);
            round.waiting.drain(..next).collect()
        };
        woken.into_iter().for_each(Waker::wake);
    }
}
