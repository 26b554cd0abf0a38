//! The locations that a transaction changes: their locked rows, what the acts so far have made of them, and the roles
//! of the callers.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use geo::Rect;
use sea_orm::{ConnectionTrait, DatabaseBackend, DatabaseTransaction, Statement};

use super::act::Act;
use crate::{
    domain::{
        access::{Action, Caller, Role, may},
        error::{Code, Error, Result},
        id::{LocationId, UserId},
        location::{Committed, Location},
        time::Timestamp,
    },
    storage::{
        error::{DbResult, unreadable},
        index,
        read::{locations, members},
        row::{COLUMNS, Row},
        sql::number_list,
    },
};

/// The way of dealing with rows that somebody else has locked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Locking {
    /// Wait for them, until the database gives up.
    Wait,
    /// Refuse the changes to them.
    Skip,
}

/// A location whose row is locked.
pub struct LockedLocation {
    /// As the acts so far have left it.
    pub location: Arc<Committed>,
    /// The box by which the index finds it.
    pub area: Option<Rect>,
    /// The position of its newest version among those to be written, if there is one.
    pub newest: Option<usize>,
    /// Whether its geometry has left the box that the index has.
    pub has_left_area: bool,
}

/// The locked locations of a transaction, by id.
pub struct LockedLocations {
    /// Absent: there is no such location. `None`: somebody else has locked it.
    rows: BTreeMap<LocationId, Option<LockedLocation>>,
    /// Roles of callers who are members.
    roles: HashMap<(LocationId, UserId), Role>,
    /// The time at which the locations were locked.
    pub now: Timestamp,
}

impl LockedLocations {
    /// Locks the locations that some acts change, and reads them and the callers' roles.
    pub async fn lock(tx: &DatabaseTransaction, acts: &[Act], locking: Locking) -> DbResult<Self> {
        let ids = acts.iter().filter_map(Act::target).map(|(id, _)| id).collect();
        let rows = lock_rows(tx, ids, locking).await?;
        let mut locked = Self { rows, roles: HashMap::new(), now: Timestamp::now() };
        // The callers whose role does not follow from the locations' rows may be members. Read after the lock, which
        // every change of members takes too.
        let callers = acts.iter().filter_map(Act::target).filter_map(|(id, by)| {
            let row = locked.rows.get(&id)?.as_ref()?;
            by.role(id, row.location.owner, locked.now).is_none().then_some((id, by.account()?))
        });
        locked.roles = members::read_roles(tx, callers.collect()).await?;
        Ok(locked)
    }

    /// Finds a location that a caller wants to do something to.
    ///
    /// # Errors
    /// `not_found`, `forbidden`; `storage_unavailable` if somebody else has locked it.
    pub fn permit(&mut self, id: LocationId, by: &Caller, action: Action) -> Result<&mut LockedLocation> {
        match self.rows.get_mut(&id) {
            Some(Some(row)) => {
                let role = by.role(id, row.location.owner, self.now);
                let role = role.or_else(|| self.roles.get(&(id, by.account()?)).copied());
                may(role, action, id).map(|()| row)
            }
            Some(None) => {
                let detail = format!("somebody has locked location {id} in the database; try again");
                Err(Error::new(Code::StorageUnavailable, detail))
            }
            None => Err(Error::no_location(id)),
        }
    }

    /// Forgets a location that is removed: later acts do not find it.
    pub fn remove(&mut self, id: LocationId) {
        self.rows.remove(&id);
    }

    /// The locations that are still there, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &LockedLocation> {
        self.rows.values().flatten()
    }
}

/// Reads and locks the rows of some locations, as [`LockedLocations`] keeps them.
async fn lock_rows(
    tx: &DatabaseTransaction,
    ids: BTreeSet<LocationId>,
    locking: Locking,
) -> DbResult<BTreeMap<LocationId, Option<LockedLocation>>> {
    let mut rows = BTreeMap::new();
    if ids.is_empty() {
        return Ok(rows);
    }
    let backend = tx.get_database_backend();
    // Not more than these ids: without the hint MySQL may scan, and lock, every row of a small table.
    let (hint, lock) = match (backend, locking) {
        (DatabaseBackend::MySql, Locking::Wait) => ("FORCE INDEX (PRIMARY)", "FOR UPDATE"),
        (DatabaseBackend::MySql, Locking::Skip) => ("FORCE INDEX (PRIMARY)", "FOR UPDATE SKIP LOCKED"),
        _ => ("", ""),
    };
    let ids: Vec<_> = ids.into_iter().collect();
    let (placeholders, values) = number_list(ids.iter().copied());
    let sql = format!("SELECT {COLUMNS} FROM location {hint} WHERE id IN ({placeholders}) {lock}");
    for row in tx.query_all_raw(Statement::from_sql_and_values(backend, sql, values)).await? {
        let row = Row::from_columns(&row)?;
        let area = row.area.as_deref().and_then(index::from_bytes);
        let location = Arc::new(Committed::from(Location::try_from(row).map_err(unreadable)?));
        let locked = LockedLocation { location, area, newest: None, has_left_area: false };
        rows.insert(locked.location.id, Some(locked));
    }
    if locking == Locking::Skip && rows.len() < ids.len() {
        for head in locations::read_heads(tx, &ids).await? {
            rows.entry(head.id).or_insert(None);
        }
    }
    Ok(rows)
}
