//! Announces who is here, at a pace: changes of presence to the members of rooms, and the list of users to admins.
//!
//! Everything that has come together since the last round is announced once. No socket's task announces anything or
//! waits for it: a thousand users that enter a room at once are some thousands of short events, not a million.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    task::yield_now,
    time::{sleep, timeout},
};

use super::{people::directory::Directory, rooms::Rooms};
use crate::{config::Timings, supervise::Task};

/// The pause between two rounds.
const ROUND_INTERVAL: Duration = Duration::from_millis(100);

/// Announces changes until it is stopped.
pub struct Announcer {
    pub rooms: Arc<Rooms>,
    pub directory: Arc<Directory>,
    pub timings: Timings,
    /// Catches a panic over one room, so that the others go on.
    pub task: Task,
}

impl Announcer {
    /// Runs for ever.
    pub async fn run(&self) {
        let Self { rooms, directory, timings, .. } = self;
        let mut next_list = Instant::now();
        loop {
            self.announce_presence().await;
            let now = Instant::now();
            if now >= next_list && directory.send_list() {
                next_list = now + timings.list_interval;
            }
            directory.forget_gone(now, timings.listed_after_leaving);
            let next_round = if rooms.has_due() {
                ROUND_INTERVAL
            } else if directory.has_work() {
                // Also where only time changes something.
                next_list.max(now + ROUND_INTERVAL) - now
            } else {
                Duration::MAX
            };
            let change = async {
                tokio::select! {
                    () = rooms.due_added.notified() => {}
                    () = directory.changed.notified() => {}
                }
            };
            let _ = timeout(next_round, change).await;
            sleep(ROUND_INTERVAL).await;
        }
    }

    /// Announces what has changed in rooms. Other tasks of this thread have their turn between two events.
    async fn announce_presence(&self) {
        for id in self.rooms.take_due() {
            let changes = self.task.catch(|| self.rooms.take_presence_changes(id, Instant::now()));
            for change in changes.unwrap_or_default() {
                self.task.catch(|| self.rooms.send_presence(&change));
                yield_now().await;
            }
        }
    }
}
