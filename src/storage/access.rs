//! Who has to do with a location, and the one way of changing that.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use sea_orm::{
    ConnectionTrait, DatabaseBackend, DatabaseTransaction, DbErr, Statement, TransactionTrait, Value,
};
use tokio::time::timeout;

use super::{
    connect::Store,
    error::{DbResult, STATEMENT_TIMEOUT, TRIES, domain_error, is_deadlock, may_try_again},
    members,
};
use crate::domain::{
    access::{Access, Action, Caller, Role, ShareId, may},
    error::{Error, Result},
    id::{LocationId, UserId},
    time::Timestamp,
};

/// Why a change was not made.
pub enum Fault {
    Refused(Error),
    Failed(DbErr),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<DbErr> for Fault {
    fn from(error: DbErr) -> Self {
        Self::Failed(error)
    }
}

/// What came of a change.
pub type Granted<T> = std::result::Result<T, Fault>;

/// A change under way.
pub type Work<'a, T> = BoxFuture<'a, Granted<T>>;

/// Which try a change is at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Try {
    /// Nothing of it was committed before.
    Clean,
    /// An earlier COMMIT was sent and not confirmed.
    Unsure,
}

/// A location whose row is locked for a change of its members or shares.
pub struct Held {
    pub id: LocationId,
    pub owner: UserId,
    pub version: u64,
    pub grants: u64,
    pub now: Timestamp,
    pub at: Try,
    by: Caller,
    role: Option<Role>,
}

impl Held {
    /// Whether its caller may do it: somebody who manages the location, or a member to themselves.
    pub fn may_change(&self, member: Option<UserId>) -> Result<()> {
        let to_oneself = member.is_some() && member == self.by.account();
        may(self.role, if to_oneself { Action::Meet } else { Action::Manage }, self.id)
    }

    /// Counts a change; returns the count.
    pub async fn count(&self, tx: &DatabaseTransaction) -> DbResult<u64> {
        let sql = "UPDATE location SET grants = grants + 1 WHERE id = ?";
        tx.execute_raw(statement(tx, sql, [self.id.get()])).await?;
        Ok(self.grants + 1)
    }
}

impl Store {
    /// Everybody who has to do with a location: its owner, members, the shares that have not ended. `None`:
    /// there is no such location.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn access(&self, id: LocationId) -> Result<Option<Access>> {
        let read = || async {
            let tx = self.reader()?.begin().await?;
            let sql = "SELECT owner_id, grants FROM location WHERE id = ?";
            let Some(row) = tx.query_one_raw(statement(&tx, sql, [id.get()])).await? else {
                return Ok(None);
            };
            let (owner, grants): (i64, i64) = row.try_get_many_by_index()?;
            let members = members::of(&tx, id).await?;
            let sql = "SELECT id, expires_at FROM share WHERE location_id = ? AND expires_at > ?";
            let now = Timestamp::now().as_millis() as u64;
            let shares = tx.query_all_raw(statement(&tx, sql, [id.get(), now])).await?;
            let shares = shares.iter().map(|row| {
                let (id, expires_at): (i64, i64) = row.try_get_many_by_index()?;
                Ok((ShareId(id as u64), Timestamp::from_millis(expires_at)))
            });
            let access = Access {
                owner: user(owner)?,
                members,
                shares: shares.collect::<DbResult<_>>()?,
                grants: grants as u64,
            };
            tx.commit().await?;
            Ok(Some(access))
        };
        self.answered(read).await
    }

    /// Changes members or shares of a location under its row's lock, which the writer takes too: what it
    /// commits afterwards is decided by what is so changed.
    pub(super) async fn grant<T: Send + 'static>(
        &self,
        by: &Caller,
        id: LocationId,
        write: impl for<'a> Fn(&'a DatabaseTransaction, Held) -> Work<'a, T> + Send + Sync + 'static,
    ) -> Result<T> {
        let (by, write) = (by.clone(), Arc::new(write));
        self.transact(move |tx, at| {
            let (by, write) = (by.clone(), write.clone());
            Box::pin(async move { write(tx, hold(tx, by, id, at).await?).await })
        })
        .await
    }

    /// Commits some work on the writing connection, trying again where that may help, also after a COMMIT
    /// whose answer was lost: the work must bear that. Goes on to its end when the caller goes away, because
    /// half a conversation with the database would be left to the writer.
    pub(super) async fn transact<T: Send + 'static>(
        &self,
        work: impl for<'a> Fn(&'a DatabaseTransaction, Try) -> Work<'a, T> + Send + Sync + 'static,
    ) -> Result<T> {
        let turn = timeout(STATEMENT_TIMEOUT, self.turn.clone().lock_owned()).await;
        let turn = turn.map_err(|_| Error::database_away())?;
        let store = self.clone();
        let task = tokio::spawn(async move {
            let _turn = turn;
            let (mut tries, mut at) = (0, Try::Clean);
            loop {
                tries += 1;
                let begun = async {
                    let tx = store.begin().await?;
                    match work(&tx, at).await {
                        Ok(done) => Ok((tx, Ok(done))),
                        Err(Fault::Refused(refused)) => Ok((tx, Err(refused))),
                        Err(Fault::Failed(error)) => Err(error),
                    }
                };
                let error = match store.written(begun).await {
                    Ok((tx, Ok(done))) => match store.written(tx.commit()).await {
                        Ok(()) => return Ok(done),
                        Err(error) => {
                            if !is_deadlock(&error) {
                                store.abandon();
                                at = Try::Unsure;
                            }
                            error
                        }
                    },
                    Ok((tx, Err(refused))) => {
                        let _ = store.written(tx.rollback()).await;
                        return Err(refused);
                    }
                    Err(error) if may_try_again(&error) => error,
                    Err(error) => return Err(domain_error(error)),
                };
                if tries == TRIES {
                    return Err(domain_error(error));
                }
            }
        });
        task.await.unwrap_or_else(|ended| Err(Error::internal(ended)))
    }
}

/// Locks a location's row and finds out what the caller is to it.
async fn hold(tx: &DatabaseTransaction, by: Caller, id: LocationId, at: Try) -> Granted<Held> {
    let lock = match tx.get_database_backend() {
        DatabaseBackend::MySql => "FOR UPDATE",
        _ => "",
    };
    let sql = format!("SELECT owner_id, version, grants FROM location WHERE id = ? {lock}");
    let row = tx.query_one_raw(statement(tx, &sql, [id.get()])).await?;
    let row = row.ok_or_else(|| Error::no_location(id))?;
    let (owner, version, grants): (i64, i64, i64) = row.try_get_many_by_index()?;
    let (owner, now) = (user(owner)?, Timestamp::now());
    let role = match (by.role(id, owner, now), by.account()) {
        (None, Some(user)) => members::role(tx, id, user).await?,
        (role, _) => role,
    };
    Ok(Held { id, owner, version: version as u64, grants: grants as u64, now, at, by, role })
}

/// A statement whose parameters are all numbers.
pub fn statement(db: &impl ConnectionTrait, sql: &str, numbers: impl IntoIterator<Item = u64>) -> Statement {
    let values = numbers.into_iter().map(|number| Value::from(number as i64));
    Statement::from_sql_and_values(db.get_database_backend(), sql, values)
}

/// The one number a statement asks for.
pub async fn count(db: &impl ConnectionTrait, statement: Statement) -> DbResult<u64> {
    let row = db.query_one_raw(statement).await?;
    let count: Option<i64> = row.map(|row| row.try_get_by_index(0)).transpose()?;
    Ok(count.unwrap_or_default() as u64)
}

/// A user's id as a row has it.
pub fn user(id: i64) -> DbResult<UserId> {
    let user = u64::try_from(id).ok().and_then(UserId::new);
    user.ok_or_else(|| DbErr::Custom(format!("{id} is the id of no user")))
}
