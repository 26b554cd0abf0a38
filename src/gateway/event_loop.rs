//! Takes committed events to rooms and lists. It is one task, so a room is told of commits in their order.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::{JoinSet, yield_now},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use super::{
    people::{directory::Directory, list_events},
    rooms::Rooms,
    socket::outbox::{self, Blocked},
};
use crate::{
    domain::{event::Event, id::LocationId, location::Committed},
    service::Service,
    supervise::Task,
};

/// The time after which the gateway tries again to send or read what it could not before.
const CATCH_UP_INTERVAL: Duration = Duration::from_millis(100);
/// The pause between two such rounds, however many sockets read again.
const MIN_CATCH_UP_INTERVAL: Duration = Duration::from_millis(10);
/// Limits the events taken at once. Versions of one location among them go to its members together.
const MAX_BATCH_EVENTS: usize = 32;

/// Takes events from the writer to rooms and lists.
pub struct EventLoop {
    pub service: Arc<Service>,
    pub rooms: Arc<Rooms>,
    pub directory: Arc<Directory>,
    /// Sockets that something other than a position waits for.
    pub blocked: Arc<Blocked>,
    /// A signal that a socket has read and may be sent more.
    pub opened: Arc<Notify>,
    /// Catches a panic over one event, so that the next ones are handled.
    pub task: Task,
    /// Catches a panic over one read for a room.
    pub reads: Task,
}

/// A room that needs the database before it can go on.
enum Stuck {
    /// The room has begun to lack versions.
    HasGap(LocationId),
    /// An event for the room panicked. It may not have been told of this version.
    Broken(LocationId, Option<u64>),
}

impl EventLoop {
    /// Runs until it is stopped, and then until nothing is left to be sent.
    pub async fn run(self, mut events: mpsc::Receiver<Event>, mut stopped: oneshot::Receiver<()>) {
        let mut catch_up = interval(CATCH_UP_INTERVAL);
        catch_up.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut not_before = Instant::now();
        let mut is_stopping = false;
        let mut batch = Vec::with_capacity(MAX_BATCH_EVENTS);
        // Reads run beside this task: what one room lacks holds up no other.
        let mut reads = JoinSet::new();
        loop {
            let is_due = async {
                // The pause comes first: an event in between ends this future, and a tick that it had taken would be
                // lost.
                sleep_until(not_before).await;
                tokio::select! { _ = catch_up.tick() => {}, () = self.opened.notified() => {} }
            };
            // New versions are sent before rooms have further turns, because a small room is not to wait for large
            // ones. One turn for each round lets those go on, whatever comes.
            self.rooms.take_turn();
            tokio::select! {
                _ = &mut stopped, if !is_stopping => {
                    is_stopping = true;
                    events.close();
                }
                taken = events.recv_many(&mut batch, MAX_BATCH_EVENTS) => {
                    if taken == 0 {
                        break;
                    }
                    self.handle(&mut batch, |stuck| drop(reads.spawn(self.mend(stuck))));
                }
                () = is_due => {
                    // What waits for a socket comes before newer positions.
                    self.task.catch(|| outbox::flush_blocked(&self.blocked));
                    for id in self.rooms.catch_up() {
                        reads.spawn(self.mend(Stuck::HasGap(id)));
                    }
                    not_before = Instant::now() + MIN_CATCH_UP_INTERVAL;
                }
                Some(_) = reads.join_next() => {}
                // Other tasks of this thread have their turn in between.
                () = yield_now(), if self.rooms.has_unfinished() => {}
                () = self.rooms.turn_needed.notified() => {}
            }
        }
        while self.rooms.has_unfinished() {
            self.rooms.take_turn();
            yield_now().await;
        }
        reads.join_all().await;
    }

    /// Reads what a room needs.
    fn mend(&self, stuck: Stuck) -> impl Future<Output = ()> + Send + use<> {
        let (rooms, task) = (self.rooms.clone(), self.reads.clone());
        async move {
            let _ = match stuck {
                Stuck::HasGap(id) => task.catch_async(rooms.backfill(id)).await,
                Stuck::Broken(id, version) => task.catch_async(rooms.heal(id, version)).await,
            };
        }
    }

    /// Handles a batch of events. Rooms that need the database before they can go on are given to `mend`.
    fn handle(&self, batch: &mut Vec<Event>, mut mend: impl FnMut(Stuck)) {
        // Versions of one location go together, as long as nothing but versions comes between.
        let mut updated: Vec<Arc<Committed>> = Vec::new();
        for event in batch.drain(..) {
            if let Event::Updated(location) = event {
                updated.push(location);
                continue;
            }
            self.send_updates(&mut updated, &mut mend);
            let room = match &event {
                Event::Deleted(id) | Event::RightsChanged { id, .. } => Some(*id),
                _ => None,
            };
            let handled = self.task.catch(|| self.handle_one(event));
            if let (None, Some(id)) = (handled, room) {
                mend(Stuck::Broken(id, None));
            }
        }
        self.send_updates(&mut updated, &mut mend);
    }

    fn send_updates(&self, updated: &mut Vec<Arc<Committed>>, mend: &mut impl FnMut(Stuck)) {
        updated.sort_by_key(|location| location.id);
        for versions in updated.chunk_by(|one, next| one.id == next.id) {
            let id = versions[0].id;
            match self.task.catch(|| self.rooms.send_updates(id, versions)) {
                Some(true) => mend(Stuck::HasGap(id)),
                Some(false) => {}
                None => mend(Stuck::Broken(id, versions.last().map(|last| last.version))),
            }
        }
        updated.clear();
    }

    fn handle_one(&self, event: Event) {
        let Self { service, rooms, directory, .. } = self;
        match event {
            Event::Updated(_) => {}
            Event::Deleted(id) => rooms.close_deleted(id),
            Event::RightsChanged { id, change, grants } => rooms.change_rights(id, change, grants),
            Event::ListChanged { change, to, and_admins, payer, is_bounded } => {
                let recipients = directory.recipients(&to, and_admins);
                list_events::send_list_change(&service.limits, &change, &recipients, payer, is_bounded);
            }
            Event::Notified(told) => list_events::send_notification(directory, &told),
            Event::Mark(number) => service.events.record_settled(number),
            #[cfg(test)]
            Event::Panic => panic!("a fault in an event"),
        }
    }
}
