//! Telling people: what is stored of it together with what they are told of, in one transaction.

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Debug,
};

use sea_orm::{ConnectionTrait, DatabaseBackend, DatabaseTransaction, DbErr, Statement, Value};

use crate::{
    domain::{
        access::Payer,
        error::Result,
        event::Event,
        id::{LocationId, UserId},
        notification::{Activity, AddressedNotice, Notice},
        time::Timestamp,
    },
    storage::{
        error::DbResult,
        pool::Store,
        read::{accounts, notifications},
        sql::{Cell, Dialect, Rows, id_list, statement, user},
    },
};

/// Ids of notifications there may be of one notice: more than the most members of a location and its owner.
pub const OF_ONE_NOTICE: u64 = 1 << 14;
/// Members read, and notifications written, in one transaction of several changes: as many as a single one
/// may need.
const MOST: usize = 10_001;
/// Notifications of one statement; SQLite takes 32,766 parameters.
const TOGETHER: usize = 5_000;

/// The members of some locations.
pub type Members = HashMap<LocationId, Vec<UserId>>;

/// The members of some locations, by one statement; none for none.
///
/// # Errors
/// What the database says; that they are too many, which fewer locations are not.
pub async fn members(tx: &DatabaseTransaction, of: &BTreeSet<LocationId>) -> DbResult<Members> {
    let members = some_members(tx, of, Some(MOST + 1)).await?;
    if of.len() > 1 && members.values().map(Vec::len).sum::<usize>() > MOST {
        return Err(too_many());
    }
    Ok(members)
}

/// The same, but no more than `most`, if there is an end to them.
pub async fn some_members(
    tx: &DatabaseTransaction,
    of: &BTreeSet<LocationId>,
    most: Option<usize>,
) -> DbResult<Members> {
    let mut members = Members::new();
    let ids: Vec<_> = of.iter().copied().collect();
    if ids.is_empty() {
        return Ok(members);
    }
    let (placeholders, values) = id_list(&ids);
    let limit = most.map(|most| format!("LIMIT {most}")).unwrap_or_default();
    let sql =
        format!("SELECT location_id, user_id FROM member WHERE location_id IN ({placeholders}) {limit}");
    let statement = Statement::from_sql_and_values(tx.get_database_backend(), sql, values);
    for row in tx.query_all_raw(statement).await? {
        let (id, member): (i64, i64) = row.try_get_many_by_index()?;
        let id = u64::try_from(id).ok().and_then(LocationId::new);
        let id = id.ok_or_else(|| DbErr::Custom("member.location_id is that of no location".into()))?;
        members.entry(id).or_default().push(user(member)?);
    }
    Ok(members)
}

impl Store {
    /// See [`FanOutBudgets::check_debt`].
    pub(in crate::storage) fn may_tell(&self, payer: Option<Payer>) -> Result<()> {
        self.fan_out.as_ref().zip(payer).map_or(Ok(()), |(budgets, payer)| budgets.check_debt(payer))
    }

    /// See [`FanOutBudgets::take_for_person`]; `None`: there is no such limit.
    pub(in crate::storage) fn may_concern(&self, pair_payer: Option<Payer>, person: UserId) -> Result<()> {
        self.fan_out
            .as_ref()
            .zip(pair_payer)
            .map_or(Ok(()), |(budgets, pair_payer)| budgets.take_for_person(pair_payer, person))
    }

    /// See [`FanOutBudgets::charge`].
    pub(in crate::storage) fn told(&self, payer: Option<Payer>, event: &Event) {
        let people = match event {
            // Mostly one of them did it.
            Event::ListChanged { to, .. } => to.len().saturating_sub(1),
            Event::Notified(told) => told.recipients.len(),
            _ => return,
        };
        if let (Some(budgets), Some(payer)) = (&self.fan_out, payer) {
            budgets.charge(payer, people);
        }
    }

    /// Stores what people are told; returns it by the number of the news. A person to whom the caller may tell no
    /// more for now is left out: what was done is done, and their lists show it.
    ///
    /// # Errors
    /// What the database says; that they are too many, which one piece of news is not.
    pub(in crate::storage) async fn tell(
        &self,
        tx: &DatabaseTransaction,
        news: &[Activity],
        members: &Members,
    ) -> DbResult<Vec<(usize, AddressedNotice)>> {
        if news.is_empty() {
            return Ok(Vec::new());
        }
        let of = |id| members.get(&id).map_or(&[][..], Vec::as_slice);
        // Most change what nobody else has to do with.
        let concerned = |news: &&Activity| {
            news.owner != news.by
                || !news.is_for_members()
                || of(news.location).iter().any(|user| *user != news.by)
        };
        let people: BTreeSet<_> = news.iter().filter(concerned).flat_map(Activity::named_users).collect();
        let (mut names, others) = self.names.of(&people.into_iter().collect::<Vec<_>>());
        names.append(&mut accounts::written(tx, &others).await?);
        let names: HashMap<_, _> = names.into_iter().collect();
        let name = |user: UserId| names.get(&user).map(String::as_str);
        let mut all = Vec::new();
        for (number, news) in news.iter().enumerate() {
            let may_be_told = |user: &UserId| {
                news.is_prepaid_for(*user) || self.may_concern(news.pair_payer, *user).is_ok()
            };
            for (notice, mut to) in news.notices(of(news.location), name) {
                to.retain(may_be_told);
                if !to.is_empty() {
                    all.push((number, notice, actor(news.by, news.pair_payer), to));
                }
            }
        }
        if news.len() > 1 && all.iter().map(|(.., to)| to.len()).sum::<usize>() > MOST {
            return Err(too_many());
        }
        let mut told = Vec::with_capacity(all.len());
        let mut rows = Recipients::new(tx, self.dialect());
        for (number, notice, actor, to) in all {
            let first = insert(tx, &notice, actor).await? * OF_ONE_NOTICE;
            let to: Vec<_> = to.into_iter().zip(first..).collect();
            for (user, id) in &to {
                rows.push(*user, *id).await?;
            }
            told.push((number, AddressedNotice { notice, recipients: to }));
        }
        rows.send().await?;
        Ok(told)
    }
}

/// A notice among some news, and its id, whose being there proves that they were committed.
pub fn proof(news: &[Event]) -> Option<(u64, &Notice)> {
    news.iter().find_map(|event| match event {
        Event::Notified(AddressedNotice { notice, recipients: to }) => {
            to.first().map(|(_, id)| (id / OF_ONE_NOTICE, notice))
        }
        _ => None,
    })
}

/// Is a notice there? Waits for a COMMIT still under way. The id alone says nothing: that of a notice which was
/// rolled back may have been given again.
pub async fn is_stored(tx: &DatabaseTransaction, id: u64, notice: &Notice) -> DbResult<bool> {
    let lock = match tx.get_database_backend() {
        DatabaseBackend::MySql => "FOR UPDATE",
        _ => "",
    };
    let sql = format!("SELECT kind, location_id, fields, created_at FROM notice WHERE id = ? {lock}");
    let Some(row) = tx.query_one_raw(statement(tx, &sql, [id])).await? else { return Ok(false) };
    let there: (String, i64, String, i64) = row.try_get_many_by_index()?;
    let Notice { kind, location, fields, at, .. } = notice;
    Ok(there == (kind.to_string(), location.get() as i64, fields.clone(), at.as_millis()))
}

/// Of whose deeds a notice is counted as one, where only a share of a person's notifications may be about the deeds of
/// one user. Nobody's if an admin's token did it: that is the app's own backend, which acts for everybody.
fn actor(by: UserId, pair_payer: Option<Payer>) -> Option<u64> {
    pair_payer.map(|_| by.get())
}

/// Stores a notice; returns its id.
async fn insert(tx: &DatabaseTransaction, notice: &Notice, actor: Option<u64>) -> DbResult<u64> {
    let sql = "INSERT INTO notice (kind, actor_id, location_id, message, fields, created_at) \
               VALUES (?, ?, ?, ?, ?, ?)";
    let values = [
        notice.kind.into(),
        actor.map(|actor| actor as i64).into(),
        (notice.location.get() as i64).into(),
        notice.message.as_str().into(),
        notice.fields.as_str().into(),
        notice.at.as_millis().into(),
    ];
    let insert = Statement::from_sql_and_values(tx.get_database_backend(), sql, values);
    Ok(tx.execute_raw(insert).await?.last_insert_id())
}

/// What is known of how a membership began that is now being ended.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Beginning {
    /// Who ends it has begun it, too.
    pub is_by_the_same: bool,
    /// The member had not read of it, and what they were told of it has been removed.
    pub is_taken_back: bool,
}

/// Finds out whether who ends a membership has begun it so recently that its `member_added` is still there. If the
/// member has not read that yet, it is removed, with changes of the role since: together with the end it says
/// nothing any more.
pub async fn take_back(
    tx: &DatabaseTransaction,
    id: LocationId,
    (by, pair_payer): (UserId, Option<Payer>),
    member: UserId,
    added_at: Timestamp,
) -> DbResult<Beginning> {
    let (join, is_actor) = match tx.get_database_backend() {
        DatabaseBackend::MySql => ("STRAIGHT_JOIN", "notice.actor_id <=> ?"),
        _ => ("CROSS JOIN", "notice.actor_id IS ?"),
    };
    let actor = actor(by, pair_payer);
    let values =
        |numbers: [Option<u64>; 4]| numbers.map(|number| Value::from(number.map(|number| number as i64)));
    let sql = format!(
        "SELECT told.id, told.read_at FROM notice {join} notification AS told \
           ON told.id >= notice.id * {OF_ONE_NOTICE} AND told.id < (notice.id + 1) * {OF_ONE_NOTICE} \
         WHERE notice.created_at = ? AND notice.location_id = ? AND {is_actor} \
           AND notice.kind = 'member_added' AND told.user_id = ?"
    );
    let at = added_at.as_millis() as u64;
    let told = {
        let values = values([Some(at), Some(id.get()), actor, Some(member.get())]);
        tx.query_one_raw(Statement::from_sql_and_values(tx.get_database_backend(), sql, values)).await?
    };
    let Some(told) = told else { return Ok(Beginning::default()) };
    let (first, read_at): (i64, Option<i64>) = told.try_get_many_by_index()?;
    if read_at.is_some() {
        return Ok(Beginning { is_by_the_same: true, is_taken_back: false });
    }
    let sql = notifications::select(
        tx,
        &format!(
            "AND told.id >= ? AND told.read_at IS NULL AND notice.location_id = ? AND {is_actor} \
             AND notice.kind IN ('member_added', 'role_changed')"
        ),
    );
    let values = values([Some(member.get()), Some(first as u64), Some(id.get()), actor]);
    let later = Statement::from_sql_and_values(tx.get_database_backend(), sql, values);
    let delete = "DELETE FROM notification WHERE user_id = ? AND id = ?";
    for row in tx.query_all_raw(later).await? {
        let told: i64 = row.try_get_by_index(0)?;
        tx.execute_raw(statement(tx, delete, [member.get(), told as u64])).await?;
    }
    Ok(Beginning { is_by_the_same: true, is_taken_back: true })
}

/// Rows of those who are told, a few thousand a statement.
struct Recipients<'a> {
    tx: &'a DatabaseTransaction,
    rows: Rows,
    count: usize,
}

impl<'a> Recipients<'a> {
    fn new(tx: &'a DatabaseTransaction, dialect: Dialect) -> Self {
        let rows = Rows::new(dialect, "INSERT INTO notification (user_id, id)", "");
        Self { tx, rows, count: 0 }
    }

    async fn push(&mut self, user: UserId, id: u64) -> DbResult<()> {
        self.rows.push([user.get(), id].map(|number| Cell::Int(number as i64)));
        self.count += 1;
        if self.count < TOGETHER {
            return Ok(());
        }
        let next = Self::new(self.tx, self.rows.dialect());
        std::mem::replace(self, next).send().await
    }

    async fn send(self) -> DbResult<()> {
        Rows::send([self.rows], self.tx).await
    }
}

/// What makes the writer try fewer changes together.
fn too_many() -> DbErr {
    DbErr::Custom("too many people are to be told in one transaction".into())
}
