//! The writer: the one way of changing what is stored of locations, rights, share links and users.
//!
//! Large changes have a lane of their own ([`super::lanes`]); each lane has a task ([`super::task`]). Only reading and
//! removing notifications, and retention, write beside it.

use std::{sync::Arc, time::Instant};

use futures_util::FutureExt;
use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot,
    },
    time::timeout,
};

use super::{
    act::{Act, Done, NewShare, Rights, RightsRequest, ShareUses},
    lanes::{Lane, Lanes},
    publish::{CommitMetrics, Publisher},
    queue::{Full, QUEUE, RETRY_AFTER, Slots},
    task::{Change, LaneTask, Stay},
};
use crate::{
    domain::{
        access::{Caller, Payer, RightsChange, Role},
        error::{Code, Error, Result},
        event::Event,
        id::{LocationId, ShareId, UserId},
        location::{Committed, NewLocation, Update},
    },
    metrics::{Counter, Metrics},
    storage::{
        error::STATEMENT_TIMEOUT,
        pool::Store,
        retention::{HistorySweeper, NotificationSweeper},
    },
    supervise::Supervisor,
};

/// Sends changes to the tasks that commit them. Cheap to clone; the tasks end when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Writer {
    small: mpsc::Sender<Change>,
    large: mpsc::Sender<Change>,
    lanes: Lanes,
    slots: Slots,
    /// Refusals of callers who have too much waiting.
    limited: Counter,
}

impl Writer {
    /// Starts the tasks. Every committed change goes to `events`; while that is full, they wait.
    pub fn start(
        store: Store,
        events: mpsc::Sender<Event>,
        history: HistorySweeper,
        notifications: NotificationSweeper,
        metrics: &Metrics,
        tasks: &Supervisor,
    ) -> Self {
        let (commits, lanes) = (Arc::new(CommitMetrics::new(metrics)), Lanes::default());
        let start = |name, lane, store| {
            let (changes, queue) = mpsc::channel(QUEUE.changes);
            let task = tasks.task(name);
            let publisher = Publisher {
                store,
                events: events.clone(),
                history: history.clone(),
                notifications: notifications.clone(),
                metrics: commits.clone(),
                task: task.clone(),
            };
            let lane = LaneTask::new(lane, lanes.clone(), publisher);
            task.spawn((lane, queue), |(lane, queue)| lane.run(queue).boxed());
            changes
        };
        let large = store.large_writer().map(|store| start("large_writer", Lane::Large, store));
        let small = start("writer", Lane::Small, store);
        let large = large.unwrap_or_else(|| small.clone());
        let slots = Slots::default();
        let held = slots.clone();
        metrics.queue("writer", QUEUE.changes, move || held.held().changes);
        let held = slots.clone();
        let help = "Bytes of the bodies of changes that wait or are being committed";
        metrics.watch_bytes("writer_queue", help, move || held.held().bytes);
        Self { small, large, lanes, slots, limited: metrics.limited("waiting_changes") }
    }

    /// Commits a new location.
    ///
    /// # Errors
    /// `payload_too_large`, `rate_limited`, `storage_unavailable`, `internal`.
    pub async fn create(&self, new: NewLocation, payer: Option<Payer>) -> Result<Arc<Committed>> {
        location(self.send(Act::Create { new, payer }).await?)
    }

    /// Commits an update; returns the version that it made.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `properties_too_large`, `payload_too_large`, `rate_limited`, `storage_unavailable`,
    /// `internal`.
    pub async fn update(
        &self,
        update: Update,
        payer: Option<Payer>,
        received_at: Instant,
    ) -> Result<Arc<Committed>> {
        location(self.send(Act::Update { update, payer, received_at }).await?)
    }

    /// Commits a removal.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `rate_limited`, `storage_unavailable`, `internal`.
    pub async fn delete(&self, by: Caller, payer: Option<Payer>, id: LocationId) -> Result<()> {
        self.send(Act::Delete { id, by, payer }).await.map(drop)
    }

    /// Makes a user a member of a location, or gives a member another role.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `invalid_member`, `too_many_members`, `rate_limited`, `storage_unavailable`,
    /// `internal`.
    pub async fn set_member(
        &self,
        by: Caller,
        payer: Option<Payer>,
        location: LocationId,
        (user, role): (UserId, Role),
    ) -> Result<()> {
        let request = RightsRequest::SetMember { user, role, is_paid: false };
        self.send(Act::Rights(Rights { location, by, payer, request })).await.map(drop)
    }

    /// Ends a membership, somebody else's or the caller's own.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `rate_limited`, `storage_unavailable`, `internal`.
    pub async fn remove_member(
        &self,
        by: Caller,
        payer: Option<Payer>,
        location: LocationId,
        user: UserId,
    ) -> Result<()> {
        let request = RightsRequest::RemoveMember(user);
        self.send(Act::Rights(Rights { location, by, payer, request })).await.map(drop)
    }

    /// Makes a share link; returns its id.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `too_many_shares`, `rate_limited`, `storage_unavailable`, `internal`.
    pub async fn create_share(
        &self,
        by: Caller,
        payer: Option<Payer>,
        location: LocationId,
        new: NewShare,
    ) -> Result<ShareId> {
        let request = RightsRequest::CreateShare(new);
        match self.send(Act::Rights(Rights { location, by, payer, request })).await? {
            Done::Rights { change: RightsChange::Share(share, _), .. } => Ok(share),
            other => Err(unexpected(&other)),
        }
    }

    /// Revokes a share link.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `rate_limited`, `storage_unavailable`, `internal`.
    pub async fn revoke_share(&self, by: Caller, location: LocationId, share: ShareId) -> Result<()> {
        let request = RightsRequest::RevokeShare(share);
        self.send(Act::Rights(Rights { location, by, payer: None, request })).await.map(drop)
    }

    /// Adds to the uses of share links, each of which is given once. If it cannot be found out in time whether they
    /// were counted, this succeeds all the same: rather not at all than twice.
    ///
    /// # Errors
    /// `rate_limited`, `storage_unavailable`, `internal`.
    pub async fn count_uses(&self, used: Vec<ShareUses>) -> Result<()> {
        self.send(Act::CountUses(used)).await.map(drop)
    }

    /// Stores what users call themselves, each once.
    ///
    /// # Errors
    /// `rate_limited`, `storage_unavailable`, `internal`.
    pub async fn name_users(&self, users: Vec<(UserId, String)>) -> Result<()> {
        self.send(Act::NameUsers(users)).await.map(drop)
    }

    /// Sends an act to its lane, and waits for its outcome.
    async fn send(&self, act: Act) -> Result<Done> {
        let slot = self.slots.take(act.queued_for(), act.size()).map_err(|full| self.refuse(full))?;
        let passage = self.lanes.enter(act.target().map(|(id, _)| id), act.is_large());
        if passage.lane == Lane::Large {
            let waited = timeout(STATEMENT_TIMEOUT, passage.wait_for_small_ones()).await;
            waited.map_err(|_| Error::database_away())?;
        }
        let lane = match passage.lane {
            Lane::Small => &self.small,
            Lane::Large => &self.large,
        };
        let (reply, outcome) = oneshot::channel();
        lane.try_send(Change { act, reply, stay: Stay { _slot: slot, passage } }).map_err(|e| match e {
            TrySendError::Full(_) => self.refuse(Full::Queue),
            TrySendError::Closed(_) => Error::internal("the writer has ended"),
        })?;
        outcome.await.unwrap_or_else(|_| Err(Error::internal("the writer went away")))
    }

    fn refuse(&self, full: Full) -> Error {
        match full {
            Full::Queue => {
                let detail = "too many writes wait for the database; try again";
                Error::new(Code::StorageUnavailable, detail).after(RETRY_AFTER)
            }
            Full::Share => {
                self.limited.inc();
                Error::limited("too many changes of this caller wait for the database", RETRY_AFTER)
            }
        }
    }
}

fn location(done: Done) -> Result<Arc<Committed>> {
    match done {
        Done::Location(location) => Ok(location),
        other => Err(unexpected(&other)),
    }
}

fn unexpected(done: &Done) -> Error {
    Error::internal(format!("a change has come to something else: {done:?}"))
}
