//! From what was committed to the rooms: one task, so that a room hears of commits in their order.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tracing::error;

use super::rooms::Rooms;
use crate::domain::{event::Event, id::LocationId};

/// How often what could not be sent or read is tried again.
const CATCH_UP: Duration = Duration::from_millis(100);
/// At least so long after the last time, however many sockets read again.
const PAUSE: Duration = Duration::from_millis(10);

/// Forwards until stopped, and then what is still there.
pub async fn run(
    rooms: Arc<Rooms>,
    mut events: mpsc::Receiver<Event>,
    opened: Arc<Notify>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut catch_up = interval(CATCH_UP);
    catch_up.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut not_before = Instant::now();
    let mut stopping = false;
    // Beside this task: what one room lacks holds up no other.
    let mut reads = JoinSet::new();
    let read = |id: LocationId| {
        let rooms = rooms.clone();
        async move { rooms.fill(id).await }
    };
    loop {
        let is_due = async {
            // First: an event in between ends this, and what it has taken would be lost.
            sleep_until(not_before).await;
            tokio::select! { _ = catch_up.tick() => {}, () = opened.notified() => {} }
        };
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => {
                    if let Some(lacking) = forward(&rooms, event) {
                        reads.spawn(read(lacking));
                    }
                }
                None => break,
            },
            () = is_due => {
                rooms.catch_up().into_iter().for_each(|lacking| drop(reads.spawn(read(lacking))));
                not_before = Instant::now() + PAUSE;
            }
            Some(_) = reads.join_next() => {}
            _ = &mut stopped, if !stopping => {
                stopping = true;
                events.close();
            }
        }
    }
    reads.join_all().await;
}

/// Returns the room, if it has begun to lack versions.
fn forward(rooms: &Rooms, event: Event) -> Option<LocationId> {
    match event {
        Event::Updated(location) => match rooms.updated(&location) {
            Ok(lacking) => return lacking.then_some(location.id),
            Err(e) => {
                error!(room = %location.id, error = %e, cause = std::error::Error::source(&e), "forward");
            }
        },
        Event::Deleted(id) => rooms.deleted(id),
        Event::Granted { id, change, grants } => rooms.granted(id, change, grants),
        Event::Asked(by) => drop(by),
    }
    None
}
