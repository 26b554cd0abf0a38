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
use crate::{service::Service, supervise::Task};

/// The pause between two rounds.
const ROUND_INTERVAL: Duration = Duration::from_millis(100);
/// The pause between two lists of all users, and between two looks at what only time changes.
const LIST_INTERVAL: Duration = Duration::from_secs(1);
/// The pause after names could not be looked up.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Announces changes until it is stopped.
pub struct Announcer {
    pub rooms: Arc<Rooms>,
    pub directory: Arc<Directory>,
    /// Catches a panic over one room, so that the others go on.
    pub task: Task,
}

impl Announcer {
    /// Runs for ever.
    pub async fn run(&self) {
        let Self { rooms, directory, .. } = self;
        let mut last_list = Instant::now() - LIST_INTERVAL;
        loop {
            self.announce_presence().await;
            let now = Instant::now();
            if now >= last_list + LIST_INTERVAL && directory.send_list() {
                last_list = now;
            }
            directory.forget_gone(now);
            let next_round = if rooms.has_due() {
                ROUND_INTERVAL
            } else if directory.has_work() {
                LIST_INTERVAL.saturating_sub(now - last_list).max(ROUND_INTERVAL)
            } else {
                Duration::MAX
            };
            let change = async {
                tokio::select! {
                    () = rooms.wait_for_due() => {}
                    () = directory.wait_for_change() => {}
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

/// Looks up the names of users whose tokens do not say one, all that wait together.
pub async fn look_up_names(service: &Service, directory: &Directory) {
    loop {
        let users = directory.take_name_lookups().await;
        match service.look_up_names(&users).await {
            Ok(found) => directory.set_names(found),
            Err(error) => {
                tracing::debug!(%error, "names of users could not be read");
                directory.retry_name_lookups(&users);
                sleep(RETRY_DELAY).await;
            }
        }
        sleep(ROUND_INTERVAL).await;
    }
}
