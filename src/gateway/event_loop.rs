//! From what was committed to the rooms: one task, so that a room hears of commits in their order.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::{JoinSet, yield_now},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use super::{
    people::list_events,
    rooms::{Broken, Rooms},
};
use crate::domain::{event::Event, id::LocationId, location::Committed};

/// How often what could not be sent or read is tried again.
const CATCH_UP: Duration = Duration::from_millis(100);
/// Events taken at once: what waits for one room goes to its members together.
const BATCH: usize = 32;
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
    let mut batch = Vec::with_capacity(BATCH);
    // Beside this task: what one room lacks holds up no other.
    let mut reads = JoinSet::new();
    let read = |id: LocationId| {
        let rooms = rooms.clone();
        async move { _ = rooms.tasks.reads.catch_async(rooms.fill(id)).await }
    };
    // After a panic in an event of a room.
    let heal = |broken: Broken| {
        let rooms = rooms.clone();
        async move { _ = rooms.tasks.reads.catch_async(rooms.heal(broken)).await }
    };
    loop {
        let is_due = async {
            // First: an event in between ends this, and what it has taken would be lost.
            sleep_until(not_before).await;
            tokio::select! { _ = catch_up.tick() => {}, () = opened.notified() => {} }
        };
        // Fresh versions before rooms that are still at it: a small room is not to wait for large ones. But those too
        // go on, whatever comes.
        rooms.take_turn();
        tokio::select! {
            _ = &mut stopped, if !stopping => {
                stopping = true;
                events.close();
            }
            taken = events.recv_many(&mut batch, BATCH) => {
                if taken == 0 {
                    break;
                }
                forward(&rooms, &mut batch, |lacking| match lacking {
                    Ok(lacking) => drop(reads.spawn(read(lacking))),
                    Err(broken) => drop(reads.spawn(heal(broken))),
                });
            }
            () = is_due => {
                rooms.catch_up().into_iter().for_each(|lacking| drop(reads.spawn(read(lacking))));
                not_before = Instant::now() + PAUSE;
            }
            Some(_) = reads.join_next() => {}
            // In between, others of this thread have their turn.
            () = yield_now(), if rooms.has_turns() => {}
            () = rooms.turns.notified() => {}
        }
    }
    while rooms.take_turn() {
        yield_now().await;
    }
    reads.join_all().await;
}

/// Carries a batch over to the rooms; `lacking` is told of those that have begun to lack versions, and of those
/// for which an event panicked: the others go on.
fn forward(rooms: &Rooms, batch: &mut Vec<Event>, mut lacking: impl FnMut(Result<LocationId, Broken>)) {
    let watched = &rooms.tasks.forwarder;
    // Versions of one location go together, as long as nothing but versions comes between.
    let mut updated: Vec<Arc<Committed>> = Vec::new();
    let send = |updated: &mut Vec<Arc<Committed>>, lacking: &mut dyn FnMut(Result<LocationId, Broken>)| {
        updated.sort_by_key(|location| location.id);
        for versions in updated.chunk_by(|one, next| one.id == next.id) {
            let id = versions[0].id;
            match watched.catch(|| rooms.updated(id, versions)) {
                Some(true) => lacking(Ok(id)),
                Some(false) => {}
                None => lacking(Err(Broken { id, version: versions.last().map(|last| last.version) })),
            }
        }
        updated.clear();
    };
    for event in batch.drain(..) {
        if let Event::Updated(location) = event {
            updated.push(location);
            continue;
        }
        send(&mut updated, &mut lacking);
        let id = match &event {
            Event::Deleted(id) | Event::RightsChanged { id, .. } => Some(*id),
            _ => None,
        };
        let done = watched.catch(|| match event {
            Event::Updated(_) => {}
            Event::Deleted(id) => rooms.deleted(id),
            Event::RightsChanged { id, change, grants } => rooms.granted(id, change, grants),
            Event::PresenceChanged(change) => rooms.tell(&change),
            // Who are here.
            Event::ActiveUsersChanged(_) => rooms.people.relist(),
            Event::ListChanged { change, to, and_admins, payer, is_bounded } => {
                let account = list_events::Account { payer, is_bounded };
                list_events::listed(rooms, &change, &rooms.people.who_see(&to, and_admins), account);
            }
            Event::Notified(told) => list_events::notified(&rooms.people, &told),
            Event::Mark(number) => rooms.service.record_settled(number),
            #[cfg(test)]
            Event::Panic => panic!("a fault in an event"),
        });
        if let (None, Some(id)) = (done, id) {
            lacking(Err(Broken { id, version: None }));
        }
    }
    send(&mut updated, &mut lacking);
}
