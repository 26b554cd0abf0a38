//! The writer: one task that commits every change and tells what happened, in the order it happened.
//!
//! Versions are counted under the row's lock, in the transaction that changes the row. Because one task
//! commits and then publishes, nobody can be told of version 7 before version 6, however many callers there are.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use sea_orm::{
    ActiveValue::Set, ColumnTrait, DatabaseTransaction, DbErr, EntityTrait, QueryFilter, QuerySelect,
    SqliteTransactionMode, TransactionOptions, TransactionTrait,
};
use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot,
    },
    time::timeout,
};

use super::{
    area,
    connect::Store,
    entity::location::{self, ActiveModel, Entity},
    error::{away, domain_error, is_unanswered, may_try_again},
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
/// How often a database that is away is asked what became of a COMMIT.
const ASK_AGAIN: Duration = Duration::from_millis(500);

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

/// A change whose COMMIT was sent and never answered, and the location as it would then stand.
struct Unsure {
    act: Act,
    location: Arc<Location>,
}

async fn run(store: Store, mut queue: mpsc::Receiver<Change>, events: mpsc::Sender<Event>) {
    let mut unsure: Option<Unsure> = None;
    loop {
        let change = match &unsure {
            None => queue.recv().await.map(Some),
            // The room must hear of it even if no further change comes.
            Some(_) => timeout(ASK_AGAIN, queue.recv()).await.map_or(Some(None), |change| change.map(Some)),
        };
        let Some(change) = change else { return };
        // Before the next change, so that the room hears of both in their order.
        if let Some(Unsure { act, location }) = unsure.take() {
            match store.was_committed(&act, &location).await {
                Ok(true) => publish(&events, &act, &location).await,
                Ok(false) => {}
                Err(_) => unsure = Some(Unsure { act, location }),
            }
        }
        let Some(Change { act, reply }) = change else { continue };
        if reply.is_closed() {
            // Its caller has gone away and may be trying again.
            continue;
        }
        let result = match unsure {
            Some(_) => Err(Failure::Refused(away())),
            None => store.commit(&act).await,
        };
        let result = match result {
            Ok(location) => {
                let location = Arc::new(location);
                // Published before it is answered: once every write is answered, every event is on its
                // way to the rooms.
                publish(&events, &act, &location).await;
                Ok(location)
            }
            Err(Failure::Refused(error)) => Err(error),
            Err(Failure::Database(error)) => Err(domain_error(error)),
            Err(Failure::Unanswered(location, error)) => {
                unsure = Some(Unsure { act, location: (*location).into() });
                Err(domain_error(error))
            }
        };
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

async fn publish(events: &mpsc::Sender<Event>, act: &Act, location: &Arc<Location>) {
    let event = match act {
        Act::Create(_) => return,
        Act::Update(_) => Event::Updated(location.clone()),
        Act::Delete(id) => Event::Deleted(*id),
    };
    // Nobody listens any more only when the server has ended.
    let _ = events.send(event).await;
}

type Attempt = std::result::Result<Location, Failure>;

/// A refusal of one change, or a failure of the transaction.
enum Failure {
    Refused(Error),
    Database(DbErr),
    /// The connection broke at COMMIT; the location is as it stands if that was carried out.
    Unanswered(Box<Location>, DbErr),
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
    /// Commits one change; tries again if the database asks for it, and finds out what became of a
    /// COMMIT that was not answered.
    async fn commit(&self, act: &Act) -> Attempt {
        let mut tries = 0;
        loop {
            // A panic ends this change, not the writer.
            let attempt = AssertUnwindSafe(self.attempt(act)).catch_unwind().await;
            match attempt.unwrap_or_else(|_| Err(Error::internal("panic in a change").into())) {
                Err(Failure::Database(error)) if tries < RETRIES && may_try_again(&error) => tries += 1,
                Err(Failure::Unanswered(location, error)) => {
                    return match self.was_committed(act, &location).await {
                        Ok(true) => Ok(*location),
                        Ok(false) => Err(Failure::Database(error)),
                        Err(_) => Err(Failure::Unanswered(location, error)),
                    };
                }
                done => return done,
            }
        }
    }

    /// Was the change that led to `location` committed? The lock waits for a COMMIT still under way.
    async fn was_committed(&self, act: &Act, location: &Location) -> std::result::Result<bool, DbErr> {
        let tx = self.begin().await?;
        let id = location.id.get() as i64;
        let row = Entity::find_by_id(id).lock_exclusive().one(&tx).await?;
        tx.commit().await?;
        Ok(match (act, row) {
            (Act::Delete(_), row) => row.is_none(),
            (Act::Create(_), row) => row.is_some(),
            (Act::Update(_), Some(row)) => {
                row.version == location.version as i64 && row.updated_at == location.updated_at.as_millis()
            }
            (Act::Update(_), None) => false,
        })
    }

    /// A transaction that may write.
    async fn begin(&self) -> std::result::Result<DatabaseTransaction, DbErr> {
        // IMMEDIATE: SQLite's busy timeout does not help a read that turns into a write.
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..Default::default()
        };
        self.write.begin_with_options(options).await
    }

    async fn attempt(&self, act: &Act) -> Attempt {
        let tx = self.begin().await?;
        let location = match act {
            Act::Create(new) => insert(&tx, new).await?,
            Act::Update(change) => update(&tx, change).await?,
            Act::Delete(id) => remove(&tx, *id).await?,
        };
        match tx.commit().await {
            Ok(()) => Ok(location),
            Err(error) if is_unanswered(&error) => Err(Failure::Unanswered(location.into(), error)),
            Err(error) => Err(error.into()),
        }
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
