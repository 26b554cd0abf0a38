//! From what was committed to the rooms: one task, so that a room hears of commits in their order.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval},
};
use tracing::error;

use super::rooms::Rooms;
use crate::domain::event::Event;

/// How often sockets whose queue was full are tried again.
const CATCH_UP: Duration = Duration::from_millis(100);

/// Forwards until stopped, and then what is still there.
pub async fn run(rooms: Arc<Rooms>, mut events: mpsc::Receiver<Event>, mut stopped: oneshot::Receiver<()>) {
    let mut catch_up = interval(CATCH_UP);
    catch_up.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stopping = false;
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => forward(&rooms, event),
                None => break,
            },
            _ = catch_up.tick(), if rooms.are_behind() => rooms.catch_up(),
            _ = &mut stopped, if !stopping => {
                stopping = true;
                events.close();
            }
        }
    }
}

fn forward(rooms: &Rooms, event: Event) {
    match event {
        Event::Updated(location) => {
            if let Err(e) = rooms.updated(&location) {
                error!(room = %location.id, error = %e, cause = std::error::Error::source(&e), "forward");
            }
        }
        Event::Deleted(id) => rooms.deleted(id),
    }
}
