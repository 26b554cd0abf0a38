//! Publishing committed acts: to the rooms as events, to retention, to the counters, and to the payers' budgets.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{
    act::{Act, Done, Outcome},
    batch::Outcomes,
    metrics::CommitMetrics,
};
use crate::{
    domain::event::{Event, ListChange},
    storage::{
        pool::Store,
        retention::{HistorySweeper, NotificationSweeper},
    },
    supervise::Task,
};

/// Hands on what one of the writer's tasks has committed.
pub struct Publisher {
    pub store: Store,
    /// The channel to the rooms. While it is full, the task waits.
    pub events: mpsc::Sender<Event>,
    pub history: HistorySweeper,
    pub notifications: NotificationSweeper,
    pub metrics: Arc<CommitMetrics>,
    pub task: Task,
}

impl Publisher {
    /// Hands on acts and what follows from them, in their order; returns the outcome of each act. They are committed,
    /// so a panic here must not become the answer to a caller: the rooms' sweep finds what they were not told.
    pub async fn publish(&self, acts: &[Act], outcomes: Outcomes) -> Vec<Outcome> {
        let Outcomes { each, events } = outcomes;
        self.task.catch_async(self.hand_on(acts, &each, events)).await;
        each
    }

    async fn hand_on(&self, acts: &[Act], each: &[Outcome], further: Vec<(usize, Event)>) {
        self.metrics.record_committed(acts, each);
        let mut further = further.into_iter().peekable();
        for (number, (act, outcome)) in acts.iter().zip(each).enumerate() {
            let Ok(done) = outcome else { continue };
            self.tell_retention(act, done);
            if let Some(event) = event(act, done) {
                self.send(event).await;
            }
            while let Some((_, event)) = further.next_if(|(of, _)| *of == number) {
                self.notifications.record_event(&event);
                self.store.charge(act.payer(), &event);
                self.send(event).await;
            }
        }
    }

    fn tell_retention(&self, act: &Act, done: &Done) {
        match (act, done) {
            (Act::Delete(delete), _) => self.history.record_removed(delete.id),
            (_, Done::Location(location)) => self.history.record_version(location.id, location.version),
            _ => {}
        }
    }

    async fn send(&self, event: Event) {
        if self.events.send(event).await.is_err() {
            // Unless the server is stopping, rooms would stay silent from now on.
            self.task.fail("nobody forwards what is committed");
        }
    }
}

/// The event that an act itself is.
fn event(act: &Act, done: &Done) -> Option<Event> {
    match (act, done) {
        (Act::Create(act), Done::Location(location)) => Some(Event::ListChanged {
            change: ListChange::Created(location.clone()),
            to: Arc::new([location.owner]),
            and_admins: true,
            payer: act.payer,
            is_bounded: !act.new.is_by_admin,
        }),
        (Act::Update(_), Done::Location(location)) => Some(Event::Updated(location.clone())),
        (Act::Delete(delete), _) => Some(Event::Deleted(delete.id)),
        (Act::Rights(rights), Done::Rights { change, grants }) => {
            Some(Event::RightsChanged { id: rights.location, change: *change, grants: *grants })
        }
        _ => None,
    }
}
