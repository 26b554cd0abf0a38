//! The writer: one task that commits every change and tells what happened, in the order it happened.
//!
//! Versions are counted under the row's lock, in the transaction that changes the row. Because one task
//! commits and then publishes, nobody can be told of version 7 before version 6, however many callers there are.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt;
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
    error::{away, domain_error, may_try_again},
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

/// What a caller wants changed.
enum Act {
    Create(NewLocation),
    Update(Update),
    Delete(LocationId),
}

struct Change {
    act: Act,
    reply: oneshot::Sender<Result<Arc<Location>>>,
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
        self.send(Act::Create(new)).await
    }

    /// Commits an update; the answer has the version it became.
    ///
    /// # Errors
    /// `not_found`, `properties_too_large`, `storage_unavailable`, `internal`.
    pub async fn update(&self, update: Update) -> Result<Arc<Location>> {
        self.send(Act::Update(update)).await
    }

    /// Commits a removal; the answer is the location as it last stood.
    ///
    /// # Errors
    /// `not_found`, `storage_unavailable`, `internal`.
    pub async fn delete(&self, id: LocationId) -> Result<Arc<Location>> {
        self.send(Act::Delete(id)).await
    }

    async fn send(&self, act: Act) -> Result<Arc<Location>> {
        let (reply, answer) = oneshot::channel();
        self.changes.try_send(Change { act, reply }).map_err(|e| match e {
            TrySendError::Full(_) => {
                Error::new(Code::StorageUnavailable, "too many writes wait for the database; try again")
            }
            TrySendError::Closed(_) => Error::internal("the writer has ended"),
        })?;
        answer.await.unwrap_or_else(|_| Err(Error::internal("the writer went away")))
    }
}

async fn run(store: Store, mut queue: mpsc::Receiver<Change>, events: mpsc::Sender<Event>) {
    while let Some(Change { act, reply }) = queue.recv().await {
        if reply.is_closed() {
            // Its caller has gone away and may be trying again.
            continue;
        }
        let result = store.commit(&act).await.map(Arc::new);
        // Published before it is answered: once every write is answered, every event is on its way to
        // the rooms.
        let event = match (&act, &result) {
            (Act::Update(_), Ok(location)) => Some(Event::Updated(location.clone())),
            (Act::Delete(id), Ok(_)) => Some(Event::Deleted(*id)),
            (Act::Create(_), _) | (_, Err(_)) => None,
        };
        if let Some(event) = event {
            let _ = events.send(event).await;
        }
        let is_away = matches!(&result, Err(error) if error.code == Code::StorageUnavailable);
        let _ = reply.send(result);
        if is_away {
            // What waits would find that out too, one after the other and each after a timeout.
            while let Ok(Change { reply, .. }) = queue.try_recv() {
                let _ = reply.send(Err(away()));
            }
        }
    }
}

type Attempt = std::result::Result<Location, Failure>;

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
    /// Commits one change; tries again if the database asks for it.
    async fn commit(&self, act: &Act) -> Result<Location> {
        let mut tries = 0;
        loop {
            // A panic ends this change, not the writer.
            let attempt = AssertUnwindSafe(self.attempt(act)).catch_unwind().await;
            match attempt.unwrap_or_else(|_| Err(Error::internal("panic in a change").into())) {
                Ok(location) => return Ok(location),
                Err(Failure::Refused(error)) => return Err(error),
                Err(Failure::Database(error)) if tries < RETRIES && may_try_again(&error) => tries += 1,
                Err(Failure::Database(error)) => return Err(domain_error(error)),
            }
        }
    }

    async fn attempt(&self, act: &Act) -> Attempt {
        // IMMEDIATE: SQLite's busy timeout does not help a read that turns into a write.
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..Default::default()
        };
        let tx = self.write.begin_with_options(options).await?;
        let location = match act {
            Act::Create(new) => insert(&tx, new).await?,
            Act::Update(change) => update(&tx, change).await?,
            Act::Delete(id) => remove(&tx, *id).await?,
        };
        tx.commit().await?;
        Ok(location)
    }
}

async fn insert(tx: &DatabaseTransaction, new: &NewLocation) -> Attempt {
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

/// Reads a location and locks its row until the transaction ends.
async fn locked(tx: &DatabaseTransaction, id: LocationId) -> Attempt {
    let row = Entity::find_by_id(id.get() as i64).lock_exclusive().one(tx).await?;
    Ok(row.ok_or_else(|| Error::no_location(id))?.try_into()?)
}

async fn update(tx: &DatabaseTransaction, update: &Update) -> Attempt {
    let id = update.id.get() as i64;
    let mut location = locked(tx, update.id).await?;
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

async fn remove(tx: &DatabaseTransaction, id: LocationId) -> Attempt {
    let location = locked(tx, id).await?;
    let id = id.get() as i64;
    Entity::delete_by_id(id).exec(tx).await?;
    area::delete(tx, id).await?;
    Ok(location)
}
