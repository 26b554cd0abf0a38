//! The writer: one task that commits every change and tells what happened, in the order it happened.
//!
//! Versions are counted under the row's lock, in the transaction that changes the row. Because one task
//! commits and then publishes, nobody can be told of version 7 before version 6, however many callers there are.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures_util::{FutureExt, future::BoxFuture};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, DatabaseTransaction, DbErr, EntityTrait, QueryFilter, QuerySelect,
    SqliteTransactionMode, TransactionOptions, TransactionTrait,
};
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};

use super::{
    area,
    connect::Store,
    entity::location::{self, ActiveModel, Entity},
    error::{domain_error, may_try_again},
    geometry::Plane,
};
use crate::domain::{
    area::{covers, roomy},
    error::{Code, Error, Result},
    event::Event,
    id::LocationId,
    location::{Location, NewLocation, Update},
    time::Timestamp,
};

/// Changes that may wait; one more is refused with 503.
const QUEUE: usize = 4_096;
/// How often a transaction that lost a deadlock is tried again.
const RETRIES: u32 = 20;

enum Change {
    Create(NewLocation, oneshot::Sender<Result<Arc<Location>>>),
    Update(Update, oneshot::Sender<Result<Arc<Location>>>),
    Delete(LocationId, oneshot::Sender<Result<()>>),
}

/// The way to the writer. Cheap to clone; the task ends when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Writer {
    changes: mpsc::Sender<Change>,
}

impl Writer {
    /// Starts the task. Every committed change goes to `events`; while that is full, the writer waits.
    pub fn start(store: Store, events: mpsc::Sender<Event>) -> Self {
        let (changes, queue) = mpsc::channel(QUEUE);
        tokio::spawn(run(store, queue, events));
        Self { changes }
    }

    /// Commits a new location.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn create(&self, new: NewLocation) -> Result<Arc<Location>> {
        self.send(|reply| Change::Create(new, reply)).await
    }

    /// Commits an update; the answer has the version it became.
    ///
    /// # Errors
    /// `not_found`, `properties_too_large`, `storage_unavailable`, `internal`.
    pub async fn update(&self, update: Update) -> Result<Arc<Location>> {
        self.send(|reply| Change::Update(update, reply)).await
    }

    /// Commits a removal.
    ///
    /// # Errors
    /// `not_found`, `storage_unavailable`, `internal`.
    pub async fn delete(&self, id: LocationId) -> Result<()> {
        self.send(|reply| Change::Delete(id, reply)).await
    }

    async fn send<T>(&self, change: impl FnOnce(oneshot::Sender<Result<T>>) -> Change) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.changes.try_send(change(reply)).map_err(|e| match e {
            TrySendError::Full(_) => busy(),
            TrySendError::Closed(_) => Error::internal("the writer has ended"),
        })?;
        answer.await.unwrap_or_else(|_| Err(Error::internal("the writer went away")))
    }
}

fn busy() -> Error {
    Error::new(Code::StorageUnavailable, "too many writes wait for the database; try again")
}

impl Change {
    /// Has the caller gone away? Then nobody wants it any more.
    fn is_abandoned(&self) -> bool {
        match self {
            Self::Create(_, reply) | Self::Update(_, reply) => reply.is_closed(),
            Self::Delete(_, reply) => reply.is_closed(),
        }
    }

    fn refuse(self, error: Error) {
        match self {
            Self::Create(_, reply) | Self::Update(_, reply) => drop(reply.send(Err(error))),
            Self::Delete(_, reply) => drop(reply.send(Err(error))),
        }
    }
}

async fn run(store: Store, mut queue: mpsc::Receiver<Change>, events: mpsc::Sender<Event>) {
    while let Some(change) = queue.recv().await {
        if change.is_abandoned() {
            continue;
        }
        if commit(&store, change, &events).await.is_err() {
            // What waits would find the database away too, one after the other and each with a timeout.
            while let Ok(change) = queue.try_recv() {
                change.refuse(Error::new(
                    Code::StorageUnavailable,
                    "the database cannot be reached; try again",
                ));
            }
        }
    }
}

/// The database is away.
struct Away;

/// Commits one change. Published first, then answered: once every write is answered, every event is on
/// its way to the rooms.
async fn commit(
    store: &Store,
    change: Change,
    events: &mpsc::Sender<Event>,
) -> std::result::Result<(), Away> {
    // A caller that goes away meanwhile makes no difference to what was committed.
    match change {
        Change::Create(new, reply) => {
            let new = Arc::new(new);
            let result = store.transaction(|tx| insert(tx, new.clone()).boxed()).await;
            let away = is_away(&result);
            let _ = reply.send(result.map(Arc::new));
            away
        }
        Change::Update(change, reply) => {
            let change = Arc::new(change);
            let result = store.transaction(|tx| update(tx, change.clone()).boxed()).await.map(Arc::new);
            if let Ok(location) = &result {
                let _ = events.send(Event::Updated(location.clone())).await;
            }
            let away = is_away(&result);
            let _ = reply.send(result);
            away
        }
        Change::Delete(id, reply) => {
            let result = store.transaction(|tx| remove(tx, id).boxed()).await;
            if result.is_ok() {
                let _ = events.send(Event::Deleted(id)).await;
            }
            let away = is_away(&result);
            let _ = reply.send(result);
            away
        }
    }
}

fn is_away<T>(result: &Result<T>) -> std::result::Result<(), Away> {
    match result {
        Err(error) if error.code == Code::StorageUnavailable => Err(Away),
        _ => Ok(()),
    }
}

type Attempt<T> = std::result::Result<T, Failure>;

/// A refusal of one change, or a failure of the transaction.
enum Failure {
    Refused(Error),
    Database(DbErr),
}

impl From<DbErr> for Failure {
    fn from(error: DbErr) -> Self {
        Self::Database(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl Store {
    /// Runs one change in a transaction that may write; again, if the database asks for it.
    async fn transaction<T>(
        &self,
        change: impl for<'a> Fn(&'a DatabaseTransaction) -> BoxFuture<'a, Attempt<T>>,
    ) -> Result<T> {
        let mut tries = 0;
        loop {
            let attempt = async {
                // IMMEDIATE: SQLite's busy timeout does not help a read that turns into a write.
                let tx = self
                    .write
                    .begin_with_options(TransactionOptions {
                        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
                        ..Default::default()
                    })
                    .await?;
                let done = change(&tx).await?;
                tx.commit().await?;
                Ok(done)
            };
            // A panic ends this change, not the writer.
            let attempt = AssertUnwindSafe(attempt).catch_unwind().await;
            match attempt.unwrap_or_else(|_| Err(Error::internal("panic in a change").into())) {
                Ok(done) => return Ok(done),
                Err(Failure::Refused(error)) => return Err(error),
                Err(Failure::Database(error)) if tries < RETRIES && may_try_again(&error) => tries += 1,
                Err(Failure::Database(error)) => return Err(domain_error(error)),
            }
        }
    }
}

async fn insert(tx: &DatabaseTransaction, new: Arc<NewLocation>) -> Attempt<Location> {
    let now = Timestamp::now();
    let mut location = Location {
        // The database's to give.
        id: LocationId::FIRST,
        owner: new.owner,
        version: 1,
        geometry: new.geometry.clone(),
        properties: new.properties.clone(),
        updated_by: new.owner,
        created_at: now,
        updated_at: now,
    };
    let plane = Plane(new.geometry.plane());
    let area = roomy(&plane.0);
    let row = ActiveModel {
        owner_id: Set(new.owner.get() as i64),
        created_at: Set(now.as_millis()),
        ..ActiveModel::state(&location, plane)
    };
    let id = Entity::insert(row).exec(tx).await?.last_insert_id;
    area::put(tx, id, &area).await?;
    location.id = u64::try_from(id)
        .ok()
        .and_then(LocationId::new)
        .ok_or_else(|| Error::internal(format!("the database gave the id {id}")))?;
    Ok(location)
}

async fn update(tx: &DatabaseTransaction, update: Arc<Update>) -> Attempt<Location> {
    let id = update.id.get() as i64;
    let row = Entity::find()
        .filter(location::Column::Id.eq(id))
        .lock_exclusive()
        .one(tx)
        .await?
        .ok_or_else(|| Error::no_location(update.id))?;
    let mut location = Location::try_from(row)?;
    location.version += 1;
    location.updated_by = update.user;
    // Never backwards, whatever the clocks of two servers say.
    location.updated_at = Timestamp::now().max(location.updated_at);
    if let Some(patch) = &update.patch {
        location.properties = location.properties.merged(patch)?;
    }
    if let Some(geometry) = &update.geometry {
        location.geometry = geometry.clone();
    }
    let plane = Plane(location.geometry.plane());
    if update.geometry.is_some() {
        let area = area::get(tx, id).await?;
        if !area.is_some_and(|area| covers(&area, &plane.0)) {
            area::put(tx, id, &roomy(&plane.0)).await?;
        }
    }
    // Not `Entity::update`: that would read the row back.
    Entity::update_many()
        .set(ActiveModel::state(&location, plane))
        .filter(location::Column::Id.eq(id))
        .exec(tx)
        .await?;
    Ok(location)
}

async fn remove(tx: &DatabaseTransaction, id: LocationId) -> Attempt<()> {
    let row = id.get() as i64;
    if Entity::delete_by_id(row).exec(tx).await?.rows_affected == 0 {
        return Err(Error::no_location(id).into());
    }
    Ok(area::delete(tx, row).await?)
}
