//! Fair reading: the WebSockets of one caller take in a few frames in a round, and then other work runs.
//!
//! A thousand sockets of one caller that all have something to say would otherwise be served before a request that
//! came a moment later. A round ends when everything else that was ready to run has run once. No socket holds
//! a turn beyond its read, so a socket that is gone holds up no other.

use std::{collections::VecDeque, sync::Arc, task::Waker};

use parking_lot::Mutex;
use tokio::task::yield_now;

/// Frames that the sockets of one caller take in together in one round. The last read may exceed it.
const FRAMES_PER_ROUND: usize = 16;
/// Sockets that are woken for a round. If more were woken, they would find no frames left.
const SOCKETS_PER_ROUND: usize = 4;

/// The rounds in which the sockets of one caller read.
#[derive(Debug)]
pub struct ReadTurns(Mutex<Round>);

#[derive(Debug)]
struct Round {
    /// Frames that may still be taken in during this round.
    frames_left: usize,
    /// Sockets that wait for a later round. A socket that asks twice is in it twice.
    waiting: VecDeque<Waker>,
    /// A task is running that will begin the next round.
    is_ending: bool,
}

impl Default for ReadTurns {
    fn default() -> Self {
        let round = Round { frames_left: FRAMES_PER_ROUND, waiting: VecDeque::new(), is_ending: false };
        Self(Mutex::new(round))
    }
}

impl ReadTurns {
    /// Returns whether a socket may read now. If not, wakes the socket when it may ask again.
    pub fn poll_turn(self: &Arc<Self>, socket: &Waker) -> bool {
        let round = &mut *self.0.lock();
        if round.frames_left > 0 {
            return true;
        }
        round.waiting.push_back(socket.clone());
        if !std::mem::replace(&mut round.is_ending, true) {
            tokio::spawn(run_rounds(self.clone()));
        }
        false
    }

    /// Counts frames that a socket has read.
    pub fn record_read(&self, frames: usize) {
        let round = &mut *self.0.lock();
        round.frames_left = round.frames_left.saturating_sub(frames);
    }
}

/// Begins a new round each time other tasks have had their turn, until no socket waits for one.
async fn run_rounds(turns: Arc<ReadTurns>) {
    loop {
        yield_now().await;
        let woken: Vec<_> = {
            let round = &mut *turns.0.lock();
            round.frames_left = FRAMES_PER_ROUND;
            if round.waiting.is_empty() {
                round.is_ending = false;
                return;
            }
            let next = round.waiting.len().min(SOCKETS_PER_ROUND);
            round.waiting.drain(..next).collect()
        };
        woken.into_iter().for_each(Waker::wake);
    }
}
