//! Tells of people, at a pace: what has come together since the last time is told once, as events that take the
//! same way as updates do. No socket's task ever waits for that way.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::time::{sleep, timeout};

use crate::{
    domain::{event::Event, id::LocationId},
    gateway::rooms::Rooms,
};

/// Between two looks at rooms in which somebody has come or gone.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two lists of all who are connected, and two looks at what only time changes.
const EVERY: Duration = Duration::from_secs(1);

/// Rooms in which there is something to tell. Written by whoever enters and leaves; a lock that is taken last.
pub type Due = Mutex<HashSet<LocationId>>;

/// Tells until it is stopped.
pub async fn run(rooms: &Rooms) {
    let people = &rooms.people;
    let mut last_list = Instant::now() - EVERY;
    loop {
        let mut waiting = HashSet::new();
        let due = std::mem::take(&mut *rooms.due.lock());
        for id in due {
            let news = rooms.tasks.herald.catch(|| rooms.news(id, Instant::now()));
            let Some((changes, is_waiting)) = news else { continue };
            if is_waiting {
                waiting.insert(id);
            }
            for change in changes {
                rooms.service.publish(Event::PresenceChanged(change)).await;
            }
        }
        let changed = people.changed();
        if !changed.is_empty() {
            rooms.service.publish(Event::ActiveUsersChanged(changed)).await;
        }
        let now = Instant::now();
        let is_time = now >= last_list + EVERY;
        if is_time && people.tell() {
            last_list = now;
        }
        let look_again = match (waiting.is_empty(), people.forget(now)) {
            (false, _) => PAUSE,
            (true, true) => EVERY.saturating_sub(now - last_list).max(PAUSE),
            (true, false) => Duration::MAX,
        };
        rooms.due.lock().extend(waiting);
        let _ = timeout(look_again, people.woken.notified()).await;
        sleep(PAUSE).await;
    }
}

/// Looks up what users are called whose tokens do not say so, all who wait together.
pub async fn name(rooms: &Rooms) {
    loop {
        rooms.people.nameless.notified().await;
        let users = rooms.people.unnamed();
        match rooms.service.names(&users).await {
            Ok(found) => rooms.people.name(found),
            Err(error) => {
                tracing::debug!(%error, "names of users");
                rooms.people.put_back(&users);
                sleep(EVERY).await;
            }
        }
        sleep(PAUSE).await;
    }
}
