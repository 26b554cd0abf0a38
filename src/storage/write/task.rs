//! A writer's task: it commits what waits in one lane and publishes it, in the order in which it was committed.
//!
//! The next batch gathers while one commits, so a lone change waits for nobody and many share the cost of a commit.
//! Versions are counted under the rows' locks, in the transaction that changes them. Until a change is published its
//! passage keeps later changes of the same location in this lane, behind it, so nobody is told of version 7 before
//! version 6. The same holds while it is not known whether a COMMIT was carried out.

use std::{collections::VecDeque, iter, time::Duration};

use sea_orm::DbErr;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};
use tracing::warn;

use super::{
    act::{Act, Done, Outcome},
    audience,
    batch::{self, Outcomes},
    lanes::{Lane, Lanes, Passage},
    locked::Locking,
    proof::Proof,
    publish::Publisher,
    queue::{MAX_BATCH, Slot, Weight, take_batch},
    transaction::CommitError,
};
use crate::{
    domain::error::Error,
    storage::error::{
        DbResult, STATEMENT_TIMEOUT, TRIES, domain_error, is_away, is_lock_timeout, is_silence, may_try_again,
    },
};

/// The interval at which a database that is away is asked whether a COMMIT was carried out.
const SETTLE_INTERVAL: Duration = Duration::from_millis(500);

/// An act that waits, and the caller who waits for its outcome.
#[derive(Debug)]
pub struct Change {
    pub act: Act,
    pub reply: oneshot::Sender<Outcome>,
    pub stay: Stay,
}

/// The slot and the passage that a change holds until it is published or refused.
#[derive(Debug)]
pub struct Stay {
    pub _slot: Slot,
    pub passage: Passage,
}

/// The task of one lane.
pub struct LaneTask {
    publisher: Publisher,
    lanes: Lanes,
    lane: Lane,
    /// The proof of the last transaction.
    proof: Proof,
    /// Changes that the last batches had no room for, in the order in which they came. The slots of the queue bound
    /// them.
    waiting: VecDeque<Change>,
    unsettled: Option<Unsettled>,
    /// Changes of the next batch at most: fewer after a batch for which the database was too slow.
    max_batch: usize,
}

/// Acts whose COMMIT was sent and never confirmed. Their callers have been refused; their passages keep later changes
/// of the same locations behind them.
struct Unsettled {
    acts: Vec<Act>,
    /// The results of the acts, if they were committed.
    outcomes: Box<Outcomes>,
    proof: Proof,
    _passages: Vec<Passage>,
}

/// Acts of one transaction, and the callers who wait for each.
#[derive(Default)]
struct Batch {
    acts: Vec<Act>,
    replies: Vec<oneshot::Sender<Outcome>>,
    stays: Vec<Stay>,
}

/// The reason why acts were not committed, as far as it is known.
enum NotCommitted {
    RolledBack(DbErr),
    /// COMMIT was sent and not confirmed. These are the acts' outcomes if they were committed.
    Unknown(Box<Outcomes>, Proof, DbErr),
}

/// The database cannot be reached: nothing else need be tried now.
struct Away;

impl From<DbErr> for NotCommitted {
    fn from(error: DbErr) -> Self {
        Self::RolledBack(error)
    }
}

impl LaneTask {
    /// The task of a lane, which has not committed anything yet.
    pub fn new(lane: Lane, lanes: Lanes, publisher: Publisher) -> Self {
        Self {
            publisher,
            lanes,
            lane,
            proof: Proof::new(),
            waiting: VecDeque::new(),
            unsettled: None,
            max_batch: MAX_BATCH,
        }
    }

    /// Commits changes until no more can come.
    pub async fn run(&mut self, queue: &mut mpsc::Receiver<Change>) {
        while self.gather(queue).await {
            let mut batch = Batch::default();
            take_batch(&mut self.waiting, self.max_batch, Change::weight)
                .for_each(|change| batch.push(change));
            if let Err(Away) = self.commit(batch).await {
                self.refuse_all(queue);
            }
        }
    }

    /// Waits until there is something to do, and takes over all changes that have come. `false`: there will be none.
    async fn gather(&mut self, queue: &mut mpsc::Receiver<Change>) -> bool {
        if self.waiting.is_empty() {
            let received = match &self.unsettled {
                None => Ok(queue.recv().await),
                // The rooms must be told of unsettled acts even if no further change comes.
                Some(_) => timeout(SETTLE_INTERVAL, queue.recv()).await,
            };
            match received {
                Ok(Some(change)) => self.waiting.push_back(change),
                Ok(None) => return false,
                Err(_) => {}
            }
        }
        self.waiting.extend(iter::from_fn(|| queue.try_recv().ok()));
        true
    }

    /// Refuses all changes that wait: each batch would find out by itself, after a timeout, that the database is away.
    fn refuse_all(&mut self, queue: &mut mpsc::Receiver<Change>) {
        self.waiting.extend(iter::from_fn(|| queue.try_recv().ok()));
        for Change { reply, .. } in self.waiting.drain(..) {
            let _ = reply.send(Err(Error::database_away()));
        }
    }

    /// Commits a batch and answers its callers. A batch that the database refuses is halved until the act at fault is
    /// alone.
    async fn commit(&mut self, batch: Batch) -> Result<(), Away> {
        let mut parts = Vec::from_iter((!batch.acts.is_empty()).then_some(batch));
        let began = Instant::now();
        let mut locking = Locking::Wait;
        // Before anything new, so that the rooms hear of both in their order.
        let mut is_away_now = self.settle().await.is_err();
        while let Some(mut part) = parts.pop() {
            if is_away_now {
                refuse(part.replies, Error::database_away());
                continue;
            }
            let tried = Instant::now();
            match self.try_to_commit(&mut part.acts, &mut locking).await {
                Ok(outcomes) => self.succeed(part, outcomes, tried).await,
                Err(NotCommitted::RolledBack(error)) if part.is_to_be_halved(&error, began) => {
                    let right = part.split_off(part.acts.len() / 2);
                    parts.extend([right, part]);
                }
                Err(NotCommitted::RolledBack(error)) => {
                    is_away_now = is_away(&error);
                    self.fail(part, error);
                }
                Err(NotCommitted::Unknown(outcomes, proof, error)) => {
                    is_away_now = true;
                    self.publisher.store.write_health.record_failed(&error);
                    self.unsettled = Some(part.leave_unsettled(outcomes, proof, error));
                }
            }
        }
        if is_away_now { Err(Away) } else { Ok(()) }
    }

    /// Publishes acts and answers their callers, in this order: once every write is answered, every event is on its
    /// way to the rooms.
    async fn succeed(&mut self, part: Batch, mut outcomes: Outcomes, tried: Instant) {
        self.publisher.store.write_health.record_succeeded();
        self.publisher.metrics.duration.observe(tried.elapsed());
        self.max_batch = (self.max_batch * 2).min(MAX_BATCH);
        let Batch { acts, replies, stays } = part;
        self.publisher.publish(&acts, &mut outcomes).await;
        // A caller's next change need not stay behind one that it has the answer to.
        drop(stays);
        for (reply, outcome) in replies.into_iter().zip(outcomes.each) {
            // Its caller may have gone away.
            let _ = reply.send(outcome);
        }
    }

    fn fail(&mut self, part: Batch, error: DbErr) {
        self.publisher.store.write_health.record_failed(&error);
        if is_silence(&error) {
            // It may only be too slow for so many at once.
            self.max_batch = (part.acts.len() / 2).max(1);
        }
        refuse(part.replies, domain_error(error));
    }

    /// Commits acts together; tries again where that may help. Locked rows are waited for once a batch.
    async fn try_to_commit(
        &mut self,
        acts: &mut [Act],
        locking: &mut Locking,
    ) -> Result<Outcomes, NotCommitted> {
        let task = self.publisher.task.clone();
        let mut tries = 0;
        loop {
            tries += 1;
            // A panic ends these acts, not the writer.
            let attempt = task.catch_async(self.attempt(acts, *locking)).await;
            let panicked = Err(DbErr::Custom("panic in a change".into()).into());
            match attempt.unwrap_or(panicked) {
                Err(NotCommitted::RolledBack(error)) if may_try_again(&error) && tries < TRIES => {}
                Err(NotCommitted::RolledBack(error))
                    if is_lock_timeout(&error) && *locking == Locking::Wait =>
                {
                    *locking = Locking::Skip;
                }
                Err(NotCommitted::Unknown(mut outcomes, proof, error)) => {
                    match self.is_committed(proof, &mut outcomes).await {
                        Ok(true) => return Ok(*outcomes),
                        Ok(false) if tries < TRIES => {}
                        Ok(false) => return Err(NotCommitted::RolledBack(error)),
                        Err(_) => return Err(NotCommitted::Unknown(outcomes, proof, error)),
                    }
                }
                settled => return settled,
            }
        }
    }

    /// Carries out acts and commits them, once.
    async fn attempt(&mut self, acts: &mut [Act], locking: Locking) -> Result<Outcomes, NotCommitted> {
        let store = &self.publisher.store;
        let carried_out = store.on_writer(batch::carry_out(store, acts, locking, &mut self.proof));
        let (written, mut outcomes) = carried_out.await?;
        // Changes of new locations, which somebody may find in a list as soon as they are committed, come behind.
        let created = acts.iter().zip(&outcomes.each).filter_map(|(act, outcome)| match (act, outcome) {
            (Act::Create { .. }, Ok(Done::Location(location))) => {
                Some(self.lanes.hold(location.id, self.lane))
            }
            _ => None,
        });
        outcomes.created = created.collect();
        match written.commit(store).await {
            Ok(()) => Ok(outcomes),
            Err(CommitError::RolledBack(error)) => Err(NotCommitted::RolledBack(error)),
            Err(CommitError::Unconfirmed(proof, error)) => {
                Err(NotCommitted::Unknown(Box::new(outcomes), proof, error))
            }
        }
    }

    /// Finds out whether unsettled acts were committed, and publishes them if so.
    async fn settle(&mut self) -> Result<(), Away> {
        let Some(mut unsettled) = self.unsettled.take() else { return Ok(()) };
        match self.is_committed(unsettled.proof, &mut unsettled.outcomes).await {
            Ok(true) => self.publisher.publish(&unsettled.acts, &mut unsettled.outcomes).await,
            Ok(false) => {}
            // Asking again would not help, and everybody would wait for it.
            Err(error) if !is_away(&error) => {
                warn!(%error, "it stays unknown whether a COMMIT was carried out");
            }
            Err(error) => {
                self.publisher.store.write_health.record_failed(&error);
                warn!(%error, "it is not known yet whether a COMMIT was carried out");
                self.unsettled = Some(unsettled);
                return Err(Away);
            }
        }
        Ok(())
    }

    /// Asks the database whether a transaction was committed; if so, its events are for those who may still see what
    /// they show.
    async fn is_committed(&self, proof: Proof, outcomes: &mut Outcomes) -> DbResult<bool> {
        let store = &self.publisher.store;
        let ask = async {
            let tx = store.begin().await?;
            let is_committed = proof.is_committed(&tx).await?;
            if is_committed {
                audience::retain_entitled(&tx, &mut outcomes.events).await?;
            }
            Ok((tx, is_committed))
        };
        let (tx, is_committed) = store.on_writer(ask).await?;
        // Nothing was changed.
        let _ = store.on_writer(tx.rollback()).await;
        Ok(is_committed)
    }
}

impl Change {
    fn weight(&self) -> Weight {
        Weight {
            payer: self.act.queued_for(),
            bytes: self.act.size(),
            is_creation: matches!(self.act, Act::Create { .. }),
            is_alone: self.act.is_alone(),
        }
    }
}

impl Batch {
    fn push(&mut self, Change { act, reply, stay }: Change) {
        // A caller who has gone away may be trying again.
        if !reply.is_closed() {
            self.acts.push(act);
            self.replies.push(reply);
            self.stays.push(stay);
        }
    }

    /// Whether fewer of its acts may succeed where all have failed with this error.
    fn is_to_be_halved(&self, error: &DbErr, began: Instant) -> bool {
        let is_worth_waiting = is_lock_timeout(error) && began.elapsed() < STATEMENT_TIMEOUT;
        self.acts.len() > 1 && (!is_away(error) || is_worth_waiting)
    }

    fn split_off(&mut self, at: usize) -> Self {
        let Self { acts, replies, stays } = self;
        Self { acts: acts.split_off(at), replies: replies.split_off(at), stays: stays.split_off(at) }
    }

    /// Refuses its callers because it is not known whether their acts were committed. Uses of share links are not
    /// refused, or they would be counted again: rather not at all than twice.
    fn leave_unsettled(self, mut outcomes: Box<Outcomes>, proof: Proof, error: DbErr) -> Unsettled {
        let created = std::mem::take(&mut outcomes.created);
        let Self { acts, mut replies, stays } = self;
        if let [Act::CountUses(_)] = acts.as_slice() {
            replies.drain(..).for_each(|reply| _ = reply.send(Ok(Done::Recorded)));
        }
        refuse(replies, Error::database_away().because(error));
        let passages = stays.into_iter().map(|stay| stay.passage).chain(created).collect();
        Unsettled { acts, outcomes, proof, _passages: passages }
    }
}

/// Answers callers with a refusal; the first one's goes into the log with its cause.
fn refuse(replies: Vec<oneshot::Sender<Outcome>>, error: Error) {
    let (code, detail) = (error.code, error.detail.clone());
    let mut first = Some(error);
    for reply in replies {
        let _ = reply.send(Err(first.take().unwrap_or_else(|| Error::new(code, detail.clone()))));
    }
}
