//! The writer: a task that commits whatever waits and tells what happened, in the order it happened; and a second one
//! for large changes (`lanes.rs`).
//!
//! While one batch commits the next gathers, so a lone change waits for nobody and many share the cost of
//! a commit. Versions are counted under the rows' locks, in the transaction that changes them. Whoever commits
//! holds the order ([`Outcomes::order`]) until what was committed is published. While it is not known what became of a
//! COMMIT, its locations' passages keep the other writer away from them. So nobody can be told of version 7 before
//! version 6.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures_util::FutureExt;
use sea_orm::DbErr;
use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot,
    },
    time::{Instant, timeout},
};

use tracing::warn;

use super::{
    batch::{Act, Failure, Fate, Locked, Outcome, Outcomes},
    counts::Counts,
    lanes::{Lane, Lanes, Passage},
    queue::{BATCH, Full, Place, Places, TOTAL, Weight, take_batch},
};
use crate::{
    domain::{
        access::{Caller, Payer},
        error::{Code, Error, Result},
        event::{Event, ListChange},
        id::LocationId,
        location::{Committed, NewLocation, Update},
    },
    storage::{
        error::{
            STATEMENT_TIMEOUT, TRIES, domain_error, is_away, is_lock_timeout, is_silence, may_try_again,
        },
        pool::Store,
        retention::{Expiry, Retention},
    },
};
use crate::{
    metrics::{Counter, Metrics},
    supervise::{Supervisor, Task},
};

/// How often a database that is away is asked what became of a COMMIT.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// When there may be room again for a caller who has too much waiting; nobody knows.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// An act, and whoever waits for its outcome.
#[derive(Debug)]
struct Change {
    act: Act,
    reply: Reply,
    stay: Stay,
}

/// What a change holds until it is settled: its place in the queue, and its way.
type Stay = (Place, Passage);

type Reply = oneshot::Sender<Outcome>;

/// The way to the writer. Cheap to clone; the tasks end when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Writer {
    small: mpsc::Sender<Change>,
    large: mpsc::Sender<Change>,
    lanes: Lanes,
    places: Places,
    /// Refusals of callers who have too much waiting.
    limited: Counter,
}

impl Writer {
    /// Starts the tasks. Every committed change goes to `events`; while that is full, they wait.
    pub fn start(
        store: Store,
        events: mpsc::Sender<Event>,
        retention: Retention,
        expiry: Expiry,
        metrics: &Metrics,
        tasks: &Supervisor,
    ) -> Self {
        let (counts, lanes) = (Arc::new(Counts::start(metrics)), Lanes::default());
        let start = |name, store| {
            let (changes, queue) = mpsc::channel(TOTAL.changes);
            let watched = tasks.task(name);
            let committing = Committing {
                store,
                events: events.clone(),
                retention: retention.clone(),
                expiry: expiry.clone(),
                waiting: VecDeque::new(),
                unsure: None,
                most: BATCH,
                counts: counts.clone(),
                lanes: lanes.clone(),
                watched: watched.clone(),
            };
            watched.spawn((committing, queue), |(committing, queue)| committing.run(queue).boxed());
            changes
        };
        let large = store.has_large_writer().then(|| start("large_writer", store.large_writer()));
        let small = start("writer", store);
        let large = large.unwrap_or_else(|| small.clone());
        let places = Places::default();
        let held = places.clone();
        metrics.queue("writer", TOTAL.changes, move || held.held().changes);
        let held = places.clone();
        let help = "Bodies of changes that wait for the writer or are being committed";
        metrics.watch_bytes("writer_queue", help, move || held.held().bytes);
        Self { small, large, lanes, places, limited: metrics.limited("waiting_changes") }
    }

    /// Commits a new location.
    ///
    /// # Errors
    /// `rate_limited`, `storage_unavailable`, `internal`.
    pub async fn create(&self, new: NewLocation) -> Result<Arc<Committed>> {
        self.send(Act::Create(new)).await
    }

    /// Commits an update; the answer has the version it became.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `properties_too_large`, `rate_limited`, `storage_unavailable`, `internal`.
    pub async fn update(&self, update: Update) -> Result<Arc<Committed>> {
        self.send(Act::Update(update)).await
    }

    /// Commits a removal; the answer is the location as it last stood.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `rate_limited`, `storage_unavailable`, `internal`.
    pub async fn delete(&self, by: Caller, payer: Option<Payer>, id: LocationId) -> Result<Arc<Committed>> {
        self.send(Act::Delete { id, by, payer }).await
    }

    async fn send(&self, act: Act) -> Result<Arc<Committed>> {
        let full = || {
            let detail = "too many writes wait for the database; try again";
            Error::new(Code::StorageUnavailable, detail).after(RETRY_AFTER)
        };
        let place = self.places.take(act.payer(), act.size()).map_err(|why| match why {
            Full::Queue => full(),
            Full::Share => {
                self.limited.inc();
                Error::limited("too many changes of this caller wait for the database", RETRY_AFTER)
            }
        })?;
        let passage = self.lanes.enter(act.location(), act.size());
        if passage.lane() == Lane::Large {
            let waited = timeout(STATEMENT_TIMEOUT, passage.free()).await;
            waited.map_err(|_| Error::database_away())?;
        }
        let lane = match passage.lane() {
            Lane::Small => &self.small,
            Lane::Large => &self.large,
        };
        let (reply, answer) = oneshot::channel();
        lane.try_send(Change { act, reply, stay: (place, passage) }).map_err(|e| match e {
            TrySendError::Full(_) => full(),
            TrySendError::Closed(_) => Error::internal("the writer has ended"),
        })?;
        answer.await.unwrap_or_else(|_| Err(Error::internal("the writer went away")))
    }
}

/// Acts of one transaction, and who waits for each.
#[derive(Default)]
struct Batch {
    acts: Vec<Act>,
    replies: Vec<Reply>,
    stays: Vec<Stay>,
}

/// The state of the task.
struct Committing {
    store: Store,
    events: mpsc::Sender<Event>,
    retention: Retention,
    expiry: Expiry,
    /// Changes that the last batches had no room for, in the order in which they came; at most [`TOTAL`].
    waiting: VecDeque<Change>,
    /// Acts whose COMMIT was sent and never confirmed, and their outcomes if it was carried out. Their
    /// callers have been refused; what they hold keeps later changes of the same locations behind them.
    unsure: Option<(Vec<Act>, Outcomes, Vec<Passage>)>,
    /// Changes of the next batch: fewer after a batch for which the database was too slow.
    most: usize,
    counts: Arc<Counts>,
    lanes: Lanes,
    watched: Task,
}

/// The database cannot be reached: nothing else need be tried now.
struct Away;

impl Committing {
    async fn run(&mut self, queue: &mut mpsc::Receiver<Change>) {
        while self.gather(queue).await {
            let mut batch = Batch::default();
            take_batch(&mut self.waiting, self.most, Change::weight).for_each(|change| batch.push(change));
            if let Err(Away) = self.commit(batch).await {
                // What waits would find that out too, batch by batch and each after a timeout.
                while let Ok(change) = queue.try_recv() {
                    self.waiting.push_back(change);
                }
                for Change { reply, .. } in self.waiting.drain(..) {
                    let _ = reply.send(Err(Error::database_away()));
                }
            }
        }
    }

    /// Waits until there is something to do, and takes over all changes that have come. `false`: there will be none.
    async fn gather(&mut self, queue: &mut mpsc::Receiver<Change>) -> bool {
        if self.waiting.is_empty() {
            // The rooms must hear of unsure acts even if no further change comes.
            let first = match &self.unsure {
                None => queue.recv().await.map(Some),
                Some(_) => timeout(ASK_AGAIN, queue.recv()).await.map_or(Some(None), |first| first.map(Some)),
            };
            let Some(first) = first else { return false };
            self.waiting.extend(first);
        }
        while let Ok(change) = queue.try_recv() {
            self.waiting.push_back(change);
        }
        true
    }

    /// Commits a batch and answers its callers. Where the database refuses it, it is halved until the act
    /// at fault is alone.
    async fn commit(&mut self, batch: Batch) -> std::result::Result<(), Away> {
        let mut parts = Vec::from_iter((!batch.acts.is_empty()).then_some(batch));
        let began = Instant::now();
        let mut locked = Locked::Wait;
        // Before anything new, so that the rooms hear of both in their order.
        let mut away_now = self.find_out().await.is_err();
        while let Some(mut part) = parts.pop() {
            if away_now {
                part.refuse(Error::database_away());
                continue;
            }
            let tried = Instant::now();
            match self.try_to_commit(&part.acts, &mut locked).await {
                Ok(outcomes) => {
                    self.store.write_health.record_succeeded();
                    self.counts.commit.observe(tried.elapsed());
                    self.most = (self.most * 2).min(BATCH);
                    // Published before they are answered: once every write is answered, every event is
                    // on its way to the rooms.
                    let each = self.publish(&part.acts, outcomes).await;
                    for (reply, outcome) in part.replies.into_iter().zip(each) {
                        // Its caller may have gone away.
                        let _ = reply.send(outcome);
                    }
                }
                Err(Failure::Undone(error))
                    if part.acts.len() > 1
                        && (!is_away(&error)
                            || is_lock_timeout(&error) && began.elapsed() < STATEMENT_TIMEOUT) =>
                {
                    let right = part.split_off(part.acts.len() / 2);
                    parts.extend([right, part]);
                }
                Err(Failure::Undone(error)) => {
                    self.store.write_health.record_failed(&error);
                    away_now = is_away(&error);
                    if is_silence(&error) {
                        // It may only be too slow for so many at once.
                        self.most = (part.acts.len() / 2).max(1);
                    }
                    part.refuse(domain_error(error));
                }
                Err(Failure::Unconfirmed(outcomes, error)) => {
                    self.store.write_health.record_failed(&error);
                    away_now = true;
                    let (acts, stays) = (std::mem::take(&mut part.acts), std::mem::take(&mut part.stays));
                    let held = self.hold_created(&acts, &outcomes, stays.first());
                    let passages = stays.into_iter().map(|(_, passage)| passage).chain(held).collect();
                    self.unsure = Some((acts, outcomes, passages));
                    part.refuse(Error::database_away().because(error));
                }
                Err(Failure::Forgotten(error)) => part.refuse(Error::database_away().because(error)),
            }
        }
        if away_now { Err(Away) } else { Ok(()) }
    }

    /// Keeps changes of what may have been created behind what may be told of that.
    fn hold_created(&self, acts: &[Act], outcomes: &Outcomes, stay: Option<&Stay>) -> Vec<Passage> {
        let lane = stay.map_or(Lane::Small, |(_, passage)| passage.lane());
        let created = acts.iter().zip(&outcomes.each).filter(|(act, _)| matches!(act, Act::Create(_)));
        created.filter_map(|(_, outcome)| Some(self.lanes.hold(outcome.as_ref().ok()?.id, lane))).collect()
    }

    /// Asks what became of acts that were not confirmed.
    async fn find_out(&mut self) -> std::result::Result<(), Away> {
        if let Some((acts, mut outcomes, passages)) = self.unsure.take() {
            match self.store.fate(&acts, &mut outcomes).await {
                Ok(Fate::Committed) => drop(self.publish(&acts, outcomes).await),
                Ok(Fate::Undone | Fate::Forgotten) => {}
                // Such as a row that cannot be read: asking again would not help, and everybody would wait for it.
                Err(error) if !is_away(&error) => {
                    warn!(%error, "it cannot be found out what became of a COMMIT")
                }
                Err(error) => {
                    self.store.write_health.record_failed(&error);
                    warn!(%error, "it cannot be found out yet what became of a COMMIT");
                    self.unsure = Some((acts, outcomes, passages));
                    return Err(Away);
                }
            }
        }
        Ok(())
    }

    /// Commits acts together; tries again where that may help. What is locked is waited for once a batch.
    async fn try_to_commit(
        &self,
        acts: &[Act],
        locked: &mut Locked,
    ) -> std::result::Result<Outcomes, Failure> {
        let mut tries = 0;
        loop {
            tries += 1;
            // A panic ends these acts, not the writer.
            let attempt = self.watched.catch_async(self.store.attempt(acts, *locked)).await;
            match attempt.unwrap_or_else(|| Err(DbErr::Custom("panic in a change".into()).into())) {
                Err(Failure::Undone(error)) if may_try_again(&error) && tries < TRIES => {}
                Err(Failure::Undone(error)) if is_lock_timeout(&error) && *locked == Locked::Wait => {
                    *locked = Locked::Skip;
                }
                Err(Failure::Unconfirmed(mut outcomes, error)) => {
                    match self.store.fate(acts, &mut outcomes).await {
                        Ok(Fate::Committed) => return Ok(outcomes),
                        Ok(Fate::Undone) if tries < TRIES => {}
                        Ok(Fate::Undone) => return Err(Failure::Undone(error)),
                        Ok(Fate::Forgotten) => return Err(Failure::Forgotten(error)),
                        Err(_) => return Err(Failure::Unconfirmed(outcomes, error)),
                    }
                }
                done => return done,
            }
        }
    }

    /// Tells of acts and of what happened beside them, in their order; returns the outcome of each act. They are
    /// committed, so a panic here must not become the answer to a caller: rooms learn from the sweep what they
    /// were not told.
    async fn publish(&self, acts: &[Act], outcomes: Outcomes) -> Vec<Outcome> {
        let Outcomes { each, news, order: _in_order } = outcomes;
        self.watched.catch_async(self.tell(acts, &each, news)).await;
        each
    }

    async fn tell(&self, acts: &[Act], each: &[Outcome], news: Vec<(usize, Event)>) {
        self.counts.committed(acts, each);
        let mut news = news.into_iter().peekable();
        for (number, (act, outcome)) in acts.iter().zip(each).enumerate() {
            let Ok(location) = outcome else { continue };
            self.retention.committed(act, location);
            let event = match act {
                Act::Create(new) => Event::ListChanged {
                    change: ListChange::Created(location.clone()),
                    to: Arc::new([location.owner]),
                    and_admins: true,
                    payer: new.payer,
                    is_bounded: !new.is_by_admin,
                },
                Act::Update(_) => Event::Updated(location.clone()),
                Act::Delete { id, .. } => Event::Deleted(*id),
            };
            self.send(event).await;
            while let Some((_, event)) = news.next_if(|(of, _)| *of == number) {
                self.expiry.happened(&event);
                self.store.told(act.payer(), &event);
                self.send(event).await;
            }
        }
    }

    async fn send(&self, event: Event) {
        if self.events.send(event).await.is_err() {
            // Unless the server is stopping, rooms would stay silent from now on.
            self.watched.fail("nobody forwards what is committed");
        }
    }
}

impl Change {
    fn weight(&self) -> Weight {
        let is_creation = matches!(self.act, Act::Create(_));
        Weight { payer: self.act.payer(), bytes: self.act.size(), is_creation }
    }
}

impl Batch {
    fn push(&mut self, Change { act, reply, stay }: Change) {
        // Whoever has gone away may be trying again.
        if !reply.is_closed() {
            self.acts.push(act);
            self.replies.push(reply);
            self.stays.push(stay);
        }
    }

    fn split_off(&mut self, at: usize) -> Self {
        let Self { acts, replies, stays } = self;
        Self { acts: acts.split_off(at), replies: replies.split_off(at), stays: stays.split_off(at) }
    }

    /// Answers every caller with a refusal; the first one's goes into the log with its cause.
    fn refuse(self, error: Error) {
        let (code, detail) = (error.code, error.detail.clone());
        let mut first = Some(error);
        for reply in self.replies {
            let _ = reply.send(Err(first.take().unwrap_or_else(|| Error::new(code, detail.clone()))));
        }
    }
}
