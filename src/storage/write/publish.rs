//! Publishing committed acts: to the rooms as events, to retention, to the counters, and to the payers' budgets.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{
    act::{Act, Done, Outcome},
    batch::Outcomes,
};
use crate::{
    domain::event::{Event, ListChange},
    metrics::{Counter, Histogram, Metrics, Seconds},
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
    /// Hands on acts and what follows from them, in their order. They are committed, so a panic here must not become
    /// the answer to a caller: the rooms' sweep finds what they were not told.
    pub async fn publish(&self, acts: &[Act], outcomes: &mut Outcomes) {
        let events = std::mem::take(&mut outcomes.events);
        self.task.catch_async(self.hand_on(acts, &outcomes.each, events)).await;
    }

    async fn hand_on(&self, acts: &[Act], each: &[Outcome], further: Vec<(usize, Event)>) {
        self.metrics.record_committed(acts, each);
        let mut further = further.into_iter().peekable();
        for (number, (act, outcome)) in acts.iter().zip(each).enumerate() {
            let Ok(done) = outcome else { continue };
            match (act, done) {
                (Act::Delete { id, .. }, _) => self.history.record_removed(*id),
                (_, Done::Location(location)) => self.history.record_version(location.id, location.version),
                _ => {}
            }
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
        (Act::Create { new, payer }, Done::Location(location)) => Some(Event::ListChanged {
            change: ListChange::Created(location.clone()),
            to: Arc::new([location.owner]),
            and_admins: true,
            payer: *payer,
            is_bounded: !new.is_by_admin,
        }),
        (Act::Update { .. }, Done::Location(location)) => Some(Event::Updated(location.clone())),
        (Act::Delete { id, .. }, _) => Some(Event::Deleted(*id)),
        (Act::Rights(rights), Done::Rights { change, grants }) => {
            Some(Event::RightsChanged { id: rights.location, change: *change, grants: *grants })
        }
        _ => None,
    }
}

/// Commits, and what was in them.
#[derive(Debug)]
pub struct CommitMetrics {
    puts: Counter,
    commits: Counter,
    rows: Histogram,
    /// The duration of transactions whose COMMIT was confirmed.
    pub duration: Seconds,
}

impl CommitMetrics {
    /// Registers the metrics.
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            puts: metrics.counter("puts", "Committed PUTs"),
            commits: metrics.counter("commits", "Transactions that changed locations"),
            duration: metrics
                .seconds("commit_duration", "Time from the beginning of a transaction to its commit"),
            rows: metrics.histogram(
                "commit_rows",
                "Changes to locations in one commit",
                (0..10).map(|n| f64::from(1 << n)),
            ),
        }
    }

    /// Counts the changes of locations of a committed transaction.
    pub fn record_committed(&self, acts: &[Act], outcomes: &[Outcome]) {
        let changed = acts.iter().zip(outcomes).filter(|(_, is)| matches!(is, Ok(Done::Location(_))));
        let (mut rows, mut puts) = (0_u32, 0);
        for (act, _) in changed {
            rows += 1;
            puts += u64::from(matches!(act, Act::Update { .. }));
        }
        self.puts.inc_by(puts);
        // All may have been refused, or have changed something else.
        if rows > 0 {
            self.commits.inc();
            self.rows.observe(rows.into());
        }
    }
}
