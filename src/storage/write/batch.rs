//! One transaction for the changes of many callers: lock what they concern, count, merge, write, commit.
//!
//! Few statements however many changes: all rows are locked by one and written by one. The moving column
//! has no spatial index; the box in `location_area` is rewritten only where a geometry has left it.
//! When to commit, what to try again and whom to tell is the writer's.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    panic::AssertUnwindSafe,
    sync::Arc,
};

use futures_util::FutureExt;
use geo::Rect;
use sea_orm::{
    ActiveValue::Set, ConnectionTrait, DatabaseBackend, DatabaseTransaction, DbErr, EntityTrait, Statement,
};

use super::{
    audience::{Account, Beside},
    grant::InOrder,
    notices,
};
use crate::{
    domain::{
        access::{Action, Caller, Payer, Role, may},
        area::{covers, roomy},
        error::{Code, Error, Result},
        event::{Event, ListChange, RemovalReason},
        geometry::Geometry,
        id::{LocationId, UserId},
        location::{Committed, Location, NewLocation, Update},
        notification::ActivityKind,
        properties::{Properties, renamed},
        time::Timestamp,
    },
    storage::{
        entity::location::{self, ActiveModel, Entity},
        error::{DbResult, is_deadlock, unreadable},
        geometry::{Altitudes, Plane},
        index,
        pool::Store,
        read::{history, locations, members},
        sql::{Cell, Dialect, Rows, id_list},
    },
};

/// What a caller wants changed.
#[derive(Debug)]
pub enum Act {
    Create(NewLocation),
    Update(Update),
    Delete { id: LocationId, by: Caller, payer: Option<Payer> },
}

impl Act {
    /// Bytes of the body it came in.
    pub fn size(&self) -> usize {
        match self {
            Self::Create(new) => new.size,
            Self::Update(update) => update.size,
            Self::Delete { .. } => 0,
        }
    }

    /// The caller whose budgets it draws on.
    pub fn payer(&self) -> Option<Payer> {
        match self {
            Self::Create(new) => new.payer,
            Self::Update(update) => update.payer,
            Self::Delete { payer, .. } => *payer,
        }
    }

    /// Which location it changes; `None`: one that is not there yet.
    pub fn location(&self) -> Option<LocationId> {
        self.changes().map(|(id, _)| id)
    }

    /// Which location it changes, and who wants that.
    fn changes(&self) -> Option<(LocationId, &Caller)> {
        match self {
            Self::Create(_) => None,
            Self::Update(update) => Some((update.id, &update.by)),
            Self::Delete { id, by, .. } => Some((*id, by)),
        }
    }
}

/// The location as a change has left it (removed: as it last stood), or why it was refused.
pub type Outcome = Result<Arc<Committed>>;

/// What came of the acts of a transaction.
#[derive(Debug)]
pub struct Outcomes {
    /// Of each act.
    pub each: Vec<Outcome>,
    /// What else people are to hear of, after the act with this number; in order.
    pub news: Vec<(usize, Event)>,
    /// Until this is dropped, nothing that is committed later is told to anybody; `None` until it is known that
    /// these are.
    pub order: Option<InOrder>,
}

/// Why a transaction did not end well.
#[derive(Debug)]
pub enum Failure {
    /// Nothing was committed.
    Undone(DbErr),
    /// COMMIT was sent and not confirmed; the outcomes if it was carried out.
    Unconfirmed(Outcomes, DbErr),
    /// COMMIT was sent, and nobody can know any more whether it was carried out.
    Forgotten(DbErr),
}

/// What became of a COMMIT that was not confirmed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fate {
    Committed,
    Undone,
    /// Others have written since, and what would tell is gone.
    Forgotten,
}

impl From<DbErr> for Failure {
    fn from(error: DbErr) -> Self {
        Self::Undone(error)
    }
}

/// How to meet rows that somebody else has locked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Locked {
    /// Until the database gives up.
    Wait,
    /// Refuse the changes to them.
    Skip,
}

/// A locked row, and what the acts so far have made of it.
struct Row {
    location: Arc<Committed>,
    /// The box it is indexed by.
    area: Option<Rect>,
    /// Its newest of the batch's [`Version`]s, if it has one.
    newest: Option<usize>,
    /// The geometry has left the box.
    left_area: bool,
}

/// A version to be written, in the database's terms.
struct Version {
    location: Arc<Committed>,
    shape: Shape,
}

/// A geometry as the columns of a row have it.
struct Shape {
    plane: Vec<u8>,
    altitudes: Option<Vec<u8>>,
}

impl Store {
    /// Carries out acts, in their order, and commits them together.
    pub async fn attempt(&self, acts: &[Act], locked: Locked) -> std::result::Result<Outcomes, Failure> {
        let (tx, mut outcomes) = self.on_writer(self.carry_out(acts, locked)).await?;
        let order = self.order.clone().lock_owned().await;
        // A panic here says as little about what was committed as a connection that breaks.
        let committed = AssertUnwindSafe(self.on_writer(tx.commit())).catch_unwind().await;
        match committed.unwrap_or_else(|_| Err(DbErr::Custom("panic at COMMIT".into()))) {
            Ok(()) => {
                outcomes.order = Some(order);
                Ok(outcomes)
            }
            Err(error) if is_deadlock(&error) => Err(Failure::Undone(error)),
            Err(error) => {
                self.abandon();
                Err(Failure::Unconfirmed(outcomes, error))
            }
        }
    }

    /// Everything but the commit.
    async fn carry_out(
        &self,
        acts: &[Act],
        locked: Locked,
    ) -> std::result::Result<(DatabaseTransaction, Outcomes), DbErr> {
        let tx = self.begin().await?;
        let changed = acts.iter().filter_map(Act::changes).map(|(id, _)| id);
        let mut rows = lock(&tx, changed.collect(), locked).await?;
        let now = Timestamp::now();
        let roles = roles(&tx, acts, &rows, now).await?;
        let mut versions = Vec::with_capacity(acts.len());
        let dialect = self.dialect();
        let mut areas = index::rows(dialect);
        let mut removed = HashSet::new();
        let mut each = Vec::with_capacity(acts.len());
        let mut beside = Beside::default();
        for (number, act) in acts.iter().enumerate() {
            let account = |by| Account::new(by, act.payer());
            each.push(match act {
                Act::Create(new) => insert(&tx, new, now, dialect).await?.map(|(version, area)| {
                    let location = version.location.clone();
                    index::push(&mut areas, location.id.get() as i64, &area);
                    versions.push(version);
                    location
                }),
                Act::Update(update) => of(&mut rows, update.id).and_then(|row| {
                    row.may(&update.by, Action::Move, &roles, now)?;
                    let renamed = row.renamed(update);
                    let is_seen_in_lists = update.geometry.is_none() || renamed.is_some();
                    if is_seen_in_lists {
                        self.may_tell(update.payer)?;
                    }
                    let version = row.update(update, now, dialect)?;
                    let location = version.location.clone();
                    if let Some((name, new)) = renamed {
                        let by = (&update.by, account(&update.by));
                        beside.happened(number, by, &location, name, ActivityKind::LocationRenamed(new), now);
                    }
                    if is_seen_in_lists {
                        let change = ListChange::Updated(location.clone());
                        beside.listed(number, account(&update.by), &location, change);
                    }
                    row.newest = Some(versions.len());
                    versions.push(version);
                    Ok(location)
                }),
                Act::Delete { id, by, payer } => of(&mut rows, *id)
                    .and_then(|row| {
                        row.may(by, Action::Manage, &roles, now)?;
                        self.may_tell(*payer)?;
                        Ok(row.location.clone())
                    })
                    .inspect(|location| {
                        let name = location.properties.name();
                        beside.happened(
                            number,
                            (by, account(by)),
                            location,
                            name,
                            ActivityKind::LocationDeleted,
                            now,
                        );
                        let change = ListChange::Deleted(*id, RemovalReason::Deleted);
                        beside.listed(number, account(by), location, change);
                        rows.remove(id);
                        removed.insert(*id);
                    }),
            });
        }
        // Before the members of what is removed are; and before much is written that those who are too many would
        // have rolled back.
        let news =
            if beside.is_empty() { Vec::new() } else { Box::pin(self.spread_beside(&tx, beside)).await? };
        let (mut locations, mut history) = (location_rows(dialect), history::rows(dialect));
        for row in rows.values().flatten() {
            let Some(newest) = row.newest else { continue };
            if row.left_area
                && let Some(area) = &row.area
            {
                index::push(&mut areas, row.location.id.get() as i64, area);
            }
            versions[newest].write_location(&mut locations, row.area.as_ref());
            locations.send_full(&tx).await?;
        }
        for version in versions.iter().filter(|version| !removed.contains(&version.location.id)) {
            version.write_history(&mut history);
            history.send_full(&tx).await?;
        }
        Rows::send([areas, locations, history], &tx).await?;
        for id in removed {
            remove(&tx, id.get() as i64).await?;
        }
        Ok((tx, Outcomes { each, news, order: None }))
    }

    /// What became of acts whose COMMIT was not confirmed. They are in one transaction, so one of them tells
    /// of all; its row's lock waits for a COMMIT still under way. If they were committed, rights may have ended
    /// since: their news is then for those who still have them.
    pub async fn fate(&self, acts: &[Act], outcomes: &mut Outcomes) -> std::result::Result<Fate, DbErr> {
        let Outcomes { each, news, order } = outcomes;
        let done =
            || acts.iter().zip(&*each).filter_map(|(act, outcome)| Some((act, outcome.as_ref().ok()?)));
        let removed = |id| done().any(|(act, was)| matches!(act, Act::Delete { .. }) && was.id == id);
        let Some((act, location)) = done().find(|(_, is)| !removed(is.id)).or_else(|| done().next()) else {
            return Ok(Fate::Committed);
        };
        let updated = |event: &Event| match event {
            Event::ListChanged { change: ListChange::Updated(location), .. } => Some(location.id),
            _ => None,
        };
        let listed: BTreeSet<_> = news.iter().filter_map(|(_, event)| updated(event)).collect();
        let ask = async {
            let tx = self.begin().await?;
            let ids = listed.iter().copied().chain([location.id]).collect();
            let rows = lock(&tx, ids, Locked::Wait).await?;
            let kept = history::version(&tx, location.id, location.version).await?;
            let members = notices::some_members(&tx, &listed, None).await?;
            Ok((tx, rows, kept, members))
        };
        let (tx, rows, kept, members) = self.on_writer(ask).await?;
        let row = |id| rows.get(&id).and_then(Option::as_ref);
        let is = row(location.id);
        let was_counted = is.is_some_and(|is| is.location.version >= location.version);
        let fate = match (act, kept) {
            _ if removed(location.id) && is.is_none() => Fate::Committed,
            _ if removed(location.id) => Fate::Undone,
            (_, Some(kept)) if kept == ***location => Fate::Committed,
            (_, Some(_)) => Fate::Undone,
            (_, None) if was_counted => Fate::Forgotten,
            (Act::Update(_), None) if is.is_none() => Fate::Forgotten,
            (_, None) => Fate::Undone,
        };
        if fate == Fate::Committed {
            news.retain(|(_, event)| updated(event).is_none_or(|id| row(id).is_some()));
            for (_, event) in news {
                let Event::ListChanged { change: ListChange::Updated(location), to, .. } = event else {
                    continue;
                };
                let members: HashSet<_> = members.get(&location.id).into_iter().flatten().collect();
                let is_still = |user: &UserId| *user == location.owner || members.contains(user);
                *to = to.iter().copied().filter(is_still).collect();
            }
            // While nobody's rights can end.
            *order = Some(self.order.clone().lock_owned().await);
        }
        // Nothing was changed.
        let _ = self.on_writer(tx.rollback()).await;
        Ok(fate)
    }
}

/// Reads and locks the rows of some locations. Absent: there is no such location. `None`: it is
/// locked by somebody else.
async fn lock(
    tx: &DatabaseTransaction,
    ids: BTreeSet<LocationId>,
    locked: Locked,
) -> std::result::Result<BTreeMap<LocationId, Option<Row>>, DbErr> {
    let mut rows = BTreeMap::new();
    if ids.is_empty() {
        return Ok(rows);
    }
    let backend = tx.get_database_backend();
    // Not more than these ids: without the hint MySQL may scan, and lock, every row of a small table.
    let (hint, lock) = match (backend, locked) {
        (DatabaseBackend::MySql, Locked::Wait) => ("FORCE INDEX (PRIMARY)", "FOR UPDATE"),
        (DatabaseBackend::MySql, Locked::Skip) => ("FORCE INDEX (PRIMARY)", "FOR UPDATE SKIP LOCKED"),
        _ => ("", ""),
    };
    let ids: Vec<_> = ids.into_iter().collect();
    let (placeholders, values) = id_list(&ids);
    let columns = location::COLUMNS;
    let sql = format!("SELECT {columns} FROM location {hint} WHERE id IN ({placeholders}) {lock}");
    for row in tx.query_all_raw(Statement::from_sql_and_values(backend, sql, values)).await? {
        let row = location::Model::from_columns(&row)?;
        let area = row.area.as_deref().and_then(index::from_bytes);
        let location = Arc::new(Committed::from(Location::try_from(row).map_err(unreadable)?));
        rows.insert(location.id, Some(Row { location, area, newest: None, left_area: false }));
    }
    if locked == Locked::Skip && rows.len() < ids.len() {
        for head in locations::versions(tx, &ids).await? {
            rows.entry(head.id).or_insert(None);
        }
    }
    Ok(rows)
}

/// The members' roles among those who want something changed. Asks the database only where that does not
/// follow from the rows: after their lock, which every change of members takes too.
async fn roles(
    tx: &DatabaseTransaction,
    acts: &[Act],
    rows: &BTreeMap<LocationId, Option<Row>>,
    now: Timestamp,
) -> std::result::Result<HashMap<(LocationId, UserId), Role>, DbErr> {
    let asked = acts.iter().filter_map(Act::changes).filter_map(|(id, by)| {
        let row = rows.get(&id)?.as_ref()?;
        by.role(id, row.location.owner, now).is_none().then_some((id, by.account()?))
    });
    members::roles(tx, asked.collect()).await
}

fn of(rows: &mut BTreeMap<LocationId, Option<Row>>, id: LocationId) -> Result<&mut Row> {
    match rows.get_mut(&id) {
        Some(Some(row)) => Ok(row),
        Some(None) => {
            let detail = format!("somebody has locked location {id} in the database; try again");
            Err(Error::new(Code::StorageUnavailable, detail))
        }
        None => Err(Error::no_location(id)),
    }
}

impl Row {
    fn may(
        &self,
        by: &Caller,
        action: Action,
        roles: &HashMap<(LocationId, UserId), Role>,
        now: Timestamp,
    ) -> Result<()> {
        let Location { id, owner, .. } = **self.location;
        let role = by.role(id, owner, now).or_else(|| roles.get(&(id, by.account()?)).copied());
        may(role, action, id)
    }

    /// What it is called and what an update will call it, where that differs.
    fn renamed(&self, update: &Update) -> Option<(Option<String>, Option<String>)> {
        let new = renamed(update.patch.as_ref()?)?;
        let name = self.location.properties.name();
        (name.as_deref() != new).then(|| (name, new.map(str::to_owned)))
    }

    fn update(&mut self, update: &Update, now: Timestamp, dialect: Dialect) -> Result<Version> {
        let location = Arc::new(Committed::by(update, self.location.updated(update, now)?));
        let plane = Plane(location.geometry.plane());
        let has_left = update.geometry.is_some() && !self.area.is_some_and(|area| covers(&area, &plane.0));
        let area = if has_left { Some(roomy(&plane.0)) } else { self.area };
        let shape = Shape::encode(&location.geometry, &plane);
        shape.check(&location.properties, dialect)?;
        let version = Version { location: location.clone(), shape };
        (self.location, self.area) = (location, area);
        self.left_area |= has_left;
        Ok(version)
    }
}

impl Shape {
    fn encode(geometry: &Geometry, plane: &Plane) -> Self {
        let altitudes = geometry.altitudes().map(|altitudes| Altitudes(altitudes).to_bytes());
        Self { plane: plane.to_bytes(), altitudes }
    }

    /// Checks that a row with this geometry and these properties fits into one packet.
    fn check(&self, properties: &Properties, dialect: Dialect) -> Result<()> {
        let altitudes = self.altitudes.as_ref().map_or(0, Vec::len);
        dialect.check_row(self.plane.len() + altitudes + properties.as_str().len())
    }
}

impl Version {
    /// Geometry, altitudes, properties, who.
    fn state(&self) -> [Cell<'_>; 4] {
        let Location { properties, updated_by, .. } = &**self.location;
        [
            Cell::Bytes(&self.shape.plane),
            self.shape.altitudes.as_deref().map_or(Cell::Null, Cell::Bytes),
            Cell::Text(properties.as_str()),
            Cell::Int(updated_by.get() as i64),
        ]
    }

    fn write_location(&self, rows: &mut Rows, area: Option<&Rect>) {
        let Location { id, owner, version, created_at, updated_at, .. } = &**self.location;
        let [geometry, altitudes, properties, updated_by] = self.state();
        let [id, owner, version] = [id.get(), owner.get(), *version].map(|n| Cell::Int(n as i64));
        let [created_at, updated_at] = [created_at, updated_at].map(|at| Cell::Int(at.as_millis()));
        let area = area.map(index::to_bytes);
        let area = area.as_deref().map_or(Cell::Null, Cell::Bytes);
        rows.push([
            id, owner, version, geometry, altitudes, properties, updated_by, created_at, updated_at, area,
        ]);
    }

    fn write_history(&self, rows: &mut Rows) {
        let Location { id, version, updated_at, .. } = &**self.location;
        let [geometry, altitudes, properties, updated_by] = self.state();
        let [id, version] = [id.get(), *version].map(|n| Cell::Int(n as i64));
        let updated_at = Cell::Int(updated_at.as_millis());
        rows.push([id, version, geometry, altitudes, properties, updated_by, updated_at]);
    }
}

/// A statement that rewrites locations which are there; the rows as [`Version::write_location`] has them.
fn location_rows(dialect: Dialect) -> Rows {
    let insert = "INSERT INTO location \
        (id, owner_id, version, geometry, altitudes, properties, updated_by, created_at, updated_at, area)";
    let tail = match dialect.backend() {
        DatabaseBackend::MySql => {
            " AS new ON DUPLICATE KEY UPDATE version = new.version, geometry = new.geometry, \
             altitudes = new.altitudes, properties = new.properties, updated_by = new.updated_by, \
             updated_at = new.updated_at, area = new.area"
        }
        _ => {
            " ON CONFLICT (id) DO UPDATE SET version = excluded.version, geometry = excluded.geometry, \
             altitudes = excluded.altitudes, properties = excluded.properties, \
             updated_by = excluded.updated_by, updated_at = excluded.updated_at, \
             area = excluded.area"
        }
    };
    Rows::new(dialect, insert, tail)
}

/// Inserts a location, whose id the database gives; its history and its box are still to be written. One that is too
/// large for the database is refused.
async fn insert(
    tx: &DatabaseTransaction,
    new: &NewLocation,
    now: Timestamp,
    dialect: Dialect,
) -> DbResult<Result<(Version, Rect)>> {
    let plane = Plane(new.geometry.plane());
    let shape = Shape::encode(&new.geometry, &plane);
    if let Err(refused) = shape.check(&new.properties, dialect) {
        return Ok(Err(refused));
    }
    let area = roomy(&plane.0);
    let row = ActiveModel {
        owner_id: Set(new.owner.get() as i64),
        version: Set(1),
        geometry: Set(plane),
        altitudes: Set(new.geometry.altitudes().map(Altitudes)),
        properties: Set(new.properties.as_str().to_owned()),
        updated_by: Set(new.owner.get() as i64),
        created_at: Set(now.as_millis()),
        updated_at: Set(now.as_millis()),
        area: Set(Some(index::to_bytes(&area))),
        ..Default::default()
    };
    let id = Entity::insert(row).exec(tx).await?.last_insert_id;
    let id = u64::try_from(id).ok().and_then(LocationId::new);
    let id = id.ok_or_else(|| DbErr::Custom("the database gave an id that is none".into()))?;
    Ok(Ok((Version { location: Arc::new(new.to_location(id, now).into()), shape }, area)))
}

/// Removes a location, its members and its shares. Its history goes later, in small steps.
async fn remove(tx: &DatabaseTransaction, id: i64) -> std::result::Result<(), DbErr> {
    Entity::delete_by_id(id).exec(tx).await?;
    for table in ["member", "share"] {
        let sql = format!("DELETE FROM {table} WHERE location_id = ?");
        tx.execute_raw(Statement::from_sql_and_values(tx.get_database_backend(), sql, [id.into()])).await?;
    }
    index::delete(tx, id).await
}
