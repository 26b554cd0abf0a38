//! What users call themselves.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use parking_lot::Mutex;
use sea_orm::{ConnectionTrait, Statement};

use crate::{
    domain::{error::Result, id::UserId},
    storage::{error::DbResult, pool::Store, sql::number_list},
};

/// Users of one statement.
const TOGETHER: usize = 1_000;
/// Users whose name is remembered; over that, those that are written down are forgotten.
const REMEMBERED: usize = 10_000;

/// What users are called, as tokens have said it last. Written by whoever meets a caller, read by whoever has to
/// name one; written down now and then.
#[derive(Debug, Default)]
pub struct Names(Mutex<Heard>);

#[derive(Debug, Default)]
struct Heard {
    names: HashMap<UserId, String>,
    /// Still to be written down.
    new: HashSet<UserId>,
}

impl Names {
    /// A token says what a user is called; `true`: that is new here.
    pub fn hear(&self, user: UserId, name: &str) -> bool {
        let Heard { names, new } = &mut *self.0.lock();
        if names.len() >= REMEMBERED && new.is_empty() {
            names.clear();
        }
        match names.entry(user) {
            Entry::Occupied(known) if known.get() == name => return false,
            Entry::Occupied(mut known) => drop(known.insert(name.to_owned())),
            Entry::Vacant(vacant) => drop(vacant.insert(name.to_owned())),
        }
        new.insert(user);
        true
    }

    /// What users are called of whom it was heard not too long ago; and the others.
    pub fn of(&self, users: &[UserId]) -> (Vec<(UserId, String)>, Vec<UserId>) {
        let known = self.0.lock();
        let (mut named, mut others) = (Vec::new(), Vec::new());
        for user in users {
            match known.names.get(user) {
                Some(name) => named.push((*user, name.clone())),
                None => others.push(*user),
            }
        }
        (named, others)
    }

    /// What is to be written down.
    pub fn take_new(&self) -> Vec<(UserId, String)> {
        let Heard { names, new } = &mut *self.0.lock();
        new.drain().filter_map(|user| Some((user, names.get(&user)?.clone()))).collect()
    }

    /// Could not be written down yet.
    pub fn put_back(&self, users: impl IntoIterator<Item = UserId>) {
        self.0.lock().new.extend(users);
    }
}

impl Store {
    /// What users are called; only those who are known to be called something. As was heard here last, else as was
    /// written down.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn names_of(&self, users: &[UserId]) -> Result<Vec<(UserId, String)>> {
        let (mut known, others) = self.names.of(users);
        for some in others.chunks(TOGETHER) {
            known.append(&mut self.read(|| async { written(&self.reader()?, some).await }).await?);
        }
        Ok(known)
    }
}

/// What users are called, as far as that is written down; none for none.
pub async fn written(db: &impl ConnectionTrait, users: &[UserId]) -> DbResult<Vec<(UserId, String)>> {
    if users.is_empty() {
        return Ok(Vec::new());
    }
    let (placeholders, values) = number_list(users.iter().copied());
    let sql = format!("SELECT id, name FROM account WHERE name IS NOT NULL AND id IN ({placeholders})");
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values);
    let name = db.query_all_raw(statement).await?.into_iter().map(|row| row.try_get_many_by_index());
    name.collect()
}
