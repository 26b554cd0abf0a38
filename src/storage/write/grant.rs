//! The one way of changing who has to do with a location.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use sea_orm::{ConnectionTrait, DatabaseBackend, DatabaseTransaction, DbErr, EntityTrait, QuerySelect};
use tokio::{sync::OwnedMutexGuard, time::timeout};

use super::notices::{self, Beginning};
use crate::{
    domain::{
        access::{Action, Caller, Payer, Role, may},
        error::{Error, Result},
        event::{Event, ListChange, RemovalReason},
        id::{LocationId, UserId},
        location::{Committed, Location},
        notification::{Activity, ActivityKind},
        time::Timestamp,
    },
    storage::{
        entity::location::Entity,
        error::{DbResult, STATEMENT_TIMEOUT, TRIES, domain_error, is_deadlock, may_try_again, unreadable},
        pool::Store,
        read::members,
        sql::{statement, user},
    },
};

/// A membership that lasted no longer and that the same caller has begun and ended is taken back: the member is
/// told neither, unless they have read of the first.
const TAKEN_BACK_MS: i64 = 60_000;
/// One that lasted no longer than this, and that the same caller has begun and ended, is ended without ending a
/// connection that has not read of it yet: nobody has asked for what was sent of it. Phones take seconds to read.
const FRESH_MS: i64 = 10_000;

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

/// What came of some work.
pub type Worked<T> = std::result::Result<T, Fault>;

/// Some work under way.
pub type Work<'a, T> = BoxFuture<'a, Worked<T>>;

/// A change of members or shares, made and not committed yet.
pub struct Made<T> {
    pub value: T,
    /// The location's count of such changes.
    pub grants: u64,
    /// What people are to be told of; `None`: nothing has changed, or nobody is concerned.
    pub kind: Option<ActivityKind>,
}

/// A committed change of members or shares.
#[derive(Debug)]
pub struct Granted<T> {
    /// What came of it.
    pub value: T,
    /// The location's count of such changes.
    pub grants: u64,
    /// Who else is to hear of it, and what.
    pub news: Vec<Event>,
    /// Until this is dropped, nothing that is committed later is told to anybody.
    pub order: InOrder,
}

/// See [`Granted::order`].
pub type InOrder = OwnedMutexGuard<()>;

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
    /// The caller whose budget for each person concerned it draws on; `None`: it may concern anybody.
    pub pair_payer: Option<Payer>,
    payer: Option<Payer>,
    by: Caller,
    role: Option<Role>,
}

impl Held {
    /// Whether its caller may do it: somebody who manages the location, or a member to themselves.
    pub fn may_change(&self, member: Option<UserId>) -> Result<()> {
        let to_oneself = member.is_some() && member == self.by.account();
        may(self.role, if to_oneself { Action::Meet } else { Action::Manage }, self.id)
    }

    /// Counts a change that was made.
    pub async fn made<T>(
        &self,
        tx: &DatabaseTransaction,
        value: T,
        kind: Option<ActivityKind>,
    ) -> Worked<Made<T>> {
        let sql = "UPDATE location SET grants = grants + 1 WHERE id = ?";
        tx.execute_raw(statement(tx, sql, [self.id.get()])).await?;
        Ok(Made { value, grants: self.grants + 1, kind })
    }

    /// Everything is already as it is to be.
    pub fn unchanged<T: Default>(&self) -> Made<T> {
        Made { value: T::default(), grants: self.grants, kind: None }
    }
}

impl Store {
    /// Changes members or shares of a location under its row's lock, which the writer takes too: what it
    /// commits afterwards is decided by what is so changed. Stores what people are told of it, too.
    pub(in crate::storage) async fn grant<T: Send + 'static>(
        &self,
        by: &Caller,
        payer: Option<Payer>,
        id: LocationId,
        write: impl for<'a> Fn(&'a DatabaseTransaction, &'a Held) -> Work<'a, Made<T>> + Send + Sync + 'static,
    ) -> Result<Granted<T>> {
        let (by, write, store) = (by.clone(), Arc::new(write), self.clone());
        let granted = self.transact_telling(move |tx, at| {
            let (by, write, store) = (by.clone(), write.clone(), store.clone());
            Box::pin(async move {
                let held = hold(tx, by, payer, id, at).await?;
                if at == Try::Clean {
                    store.may_tell(payer)?;
                }
                let mut made = write(tx, &held).await?;
                let news = match made.kind.take() {
                    Some(kind) => store.spread(tx, &held, kind).await?,
                    None => Vec::new(),
                };
                Ok((made, news))
            })
        });
        let (made, news, order) = granted.await?;
        news.iter().for_each(|event| self.told(payer, event));
        Ok(Granted { value: made.value, grants: made.grants, news, order })
    }

    /// Stores what people are told of a change; returns it, and whose list it changes.
    async fn spread(
        &self,
        tx: &DatabaseTransaction,
        held: &Held,
        kind: ActivityKind,
    ) -> DbResult<Vec<Event>> {
        let id = held.id;
        let row = Entity::find_by_id(id.get() as i64).one(tx).await?;
        let row = row.ok_or_else(|| DbErr::RecordNotFound(format!("location {id}, which is locked")))?;
        let location = Location::try_from(row).map_err(unreadable)?;
        let name = location.properties.name();
        let (by, mut except) = (held.by.user(), None);
        let listed = match kind {
            ActivityKind::MemberAdded(user, _) => {
                Some((user, ListChange::Created(Arc::new(Committed::from(location)))))
            }
            ActivityKind::MemberRemoved(user, added_at) => {
                let lasted_ms = held.now.as_millis() - added_at.as_millis();
                let beginning = match user != by && lasted_ms < TAKEN_BACK_MS {
                    true => notices::take_back(tx, id, (by, held.pair_payer), user, added_at).await?,
                    false => Beginning::default(),
                };
                except = beginning.is_taken_back.then_some(user);
                let is_fresh = beginning.is_by_the_same && lasted_ms < FRESH_MS;
                let ending = if is_fresh { RemovalReason::TakenBack } else { RemovalReason::Withdrawn };
                Some((user, ListChange::Deleted(id, ending)))
            }
            _ => None,
        };
        let listed = listed.map(|(user, change)| Event::ListChanged {
            change,
            to: Arc::new([user]),
            // They see all locations.
            and_admins: false,
            payer: held.payer,
            is_bounded: held.pair_payer.is_some(),
        });
        let (owner, at, pair_payer) = (held.owner, held.now, held.pair_payer);
        let news = Activity { by, location: id, owner, name, kind, at, pair_payer, except };
        let concerned = news.is_for_members().then_some(id).into_iter().collect();
        let members = notices::members(tx, &concerned).await?;
        let told = self.tell(tx, &[news], &members).await?;
        Ok(listed.into_iter().chain(told.into_iter().map(|(_, told)| Event::Notified(told))).collect())
    }

    /// Commits some work apart from the changes of locations, trying again where that may help, also after a COMMIT
    /// whose answer was lost: the work must bear that. Goes on to its end when the caller goes away, because
    /// half a conversation with the database would be left to whoever has the connection next.
    pub(in crate::storage) async fn transact<T: Send + 'static>(
        &self,
        work: impl for<'a> Fn(&'a DatabaseTransaction, Try) -> Work<'a, T> + Send + Sync + 'static,
    ) -> Result<T> {
        let work = Arc::new(work);
        let telling_nobody = self.transact_telling(move |tx, at| {
            let work = work.clone();
            Box::pin(async move { Ok((work(tx, at).await?, Vec::new())) })
        });
        Ok(telling_nobody.await?.0)
    }

    /// The same of work that people are told of: returns what they are told, and what must not be dropped before
    /// they are. Where it has stored a notice, that says whether a COMMIT was carried out.
    async fn transact_telling<T: Send + 'static>(
        &self,
        work: impl for<'a> Fn(&'a DatabaseTransaction, Try) -> Work<'a, (T, Vec<Event>)> + Send + Sync + 'static,
    ) -> Result<(T, Vec<Event>, InOrder)> {
        let turn = timeout(STATEMENT_TIMEOUT, self.turn.clone().lock_owned()).await;
        let turn = turn.map_err(|_| Error::database_away())?;
        let store = self.large_writer();
        let task = tokio::spawn(async move {
            let _turn = turn;
            let (mut tries, mut at) = (0, Try::Clean);
            // What was sent to be committed and can be proved.
            let mut unsure: Option<(T, Vec<Event>)> = None;
            loop {
                tries += 1;
                let begun = async {
                    let tx = store.begin().await?;
                    if let Some((_, news)) = &mut unsure
                        && let Some((id, notice)) = notices::proof(news)
                    {
                        if notices::is_stored(&tx, id, notice).await? {
                            show_as_it_is_now(&tx, news).await?;
                            return Ok((tx, Ok(None)));
                        }
                        (unsure, at) = (None, Try::Clean);
                    }
                    match work(&tx, at).await {
                        Ok(done) => Ok((tx, Ok(Some(done)))),
                        Err(Fault::Refused(refused)) => Ok((tx, Err(refused))),
                        Err(Fault::Failed(error)) => Err(error),
                    }
                };
                let error = match store.on_writer(begun).await {
                    Ok((tx, Ok(Some((done, news))))) => {
                        let order = store.order.clone().lock_owned().await;
                        match store.on_writer(tx.commit()).await {
                            Ok(()) => return Ok((done, news, order)),
                            Err(error) => {
                                if !is_deadlock(&error) {
                                    store.abandon();
                                    at = Try::Unsure;
                                    unsure = notices::proof(&news).is_some().then_some((done, news));
                                }
                                error
                            }
                        }
                    }
                    Ok((tx, Ok(None))) => {
                        let order = store.order.clone().lock_owned().await;
                        let _ = store.on_writer(tx.rollback()).await;
                        let (done, news) = unsure.take().expect("what is stored was sent");
                        return Ok((done, news, order));
                    }
                    Ok((tx, Err(refused))) => {
                        let _ = store.on_writer(tx.rollback()).await;
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

/// Makes news that others may have committed after what is shown as it is now, and is not what is gone.
async fn show_as_it_is_now(tx: &DatabaseTransaction, news: &mut Vec<Event>) -> DbResult<()> {
    let mut gone = None;
    for event in news.iter_mut() {
        let Event::ListChanged { change: ListChange::Created(location), .. } = event else { continue };
        let row = Entity::find_by_id(location.id.get() as i64).lock_exclusive().one(tx).await?;
        match row {
            Some(row) => *location = Arc::new(Location::try_from(row).map_err(unreadable)?.into()),
            None => gone = Some(location.id),
        }
    }
    news.retain(
        |event| !matches!(event, Event::ListChanged { change: ListChange::Created(is), .. } if Some(is.id) == gone),
    );
    Ok(())
}

/// Locks a location's row and finds out what the caller is to it.
async fn hold(
    tx: &DatabaseTransaction,
    by: Caller,
    payer: Option<Payer>,
    id: LocationId,
    at: Try,
) -> Worked<Held> {
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
    let (version, grants, pair_payer) = (version as u64, grants as u64, pair_payer(&by, payer));
    Ok(Held { id, owner, version, grants, now, at, payer, pair_payer, by, role })
}

/// The caller whose budget for each person concerned a change draws on: everybody's but admins', whose tokens are
/// those of the app's own backend.
pub fn pair_payer(by: &Caller, payer: Option<Payer>) -> Option<Payer> {
    payer.filter(|_| !by.is_admin())
}
