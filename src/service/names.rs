//! The names of users: the one cache of what tokens say, and the one look-up.
//!
//! A token may name its user. The newest name of each is kept here at once and written to the database a little later,
//! because nobody waits for it. A crash loses the names of the last few seconds, which the next tokens say again.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use parking_lot::Mutex;

use crate::{
    domain::{error::Result, id::UserId},
    storage::{Member, Store, Writer},
};

/// Names written by one act; SQLite takes 32,766 parameters a statement.
const MAX_NAMES_OF_ACT: usize = 1_000;
/// Users whose names are cached. Beyond that all names that have been written are forgotten.
const MAX_CACHED: usize = 10_000;

/// The cache of names.
#[derive(Debug)]
pub struct Names {
    store: Store,
    writer: Writer,
    /// Written for every token that says another name, and read whenever a user is named.
    cache: Mutex<Cache>,
    /// Held while names are written, so that whoever waits for a name to be written waits for one under way, too.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Cache {
    names: HashMap<UserId, String>,
    unwritten: HashSet<UserId>,
}

impl Names {
    /// Creates an empty cache.
    pub fn new(store: Store, writer: Writer) -> Self {
        Self { store, writer, cache: Mutex::default(), writing: tokio::sync::Mutex::default() }
    }

    /// Records the name that a token says; returns whether it is another than before.
    pub fn record(&self, user: UserId, name: &str) -> bool {
        self.cache.lock().record(user, name)
    }

    /// The cached name of a user.
    pub fn get(&self, user: UserId) -> Option<String> {
        self.cache.lock().names.get(&user).cloned()
    }

    /// Looks up the names of users, in the cache and else in the database. Users without a name are left out.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn look_up(&self, users: &[UserId]) -> Result<Vec<(UserId, String)>> {
        let (mut names, others) = {
            let cache = self.cache.lock();
            let is_cached = |user: &&UserId| cache.names.contains_key(*user);
            let (cached, others): (Vec<&UserId>, Vec<&UserId>) = users.iter().partition(is_cached);
            let names = cached.into_iter().map(|user| (*user, cache.names[user].clone()));
            (Vec::from_iter(names), Vec::from_iter(others.into_iter().copied()))
        };
        names.append(&mut self.store.names(&others).await?);
        Ok(names)
    }

    /// Replaces names that were read from the database by newer ones.
    pub fn refresh(&self, members: &mut [Member]) {
        let cache = self.cache.lock();
        for member in members {
            if let Some(name) = cache.names.get(&member.user) {
                member.name = Some(name.clone());
            }
        }
    }

    /// Writes all names that have not been written.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`; the names are written the next time.
    pub async fn write(&self) -> Result<()> {
        self.write_where(|_| true).await
    }

    /// Writes the names of some users, if they have not been written: the writer reads them from the database when it
    /// tells others of what these users did.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn write_of(&self, users: &[UserId]) -> Result<()> {
        self.write_where(|user| users.contains(user)).await
    }

    async fn write_where(&self, is_chosen: impl Fn(&UserId) -> bool) -> Result<()> {
        let _writing = self.writing.lock().await;
        let names = self.cache.lock().take_unwritten(is_chosen);
        for (done, some) in names.chunks(MAX_NAMES_OF_ACT).enumerate() {
            if let Err(error) = self.writer.name_users(some.to_vec()).await {
                let rest = &names[done * MAX_NAMES_OF_ACT..];
                self.cache.lock().unwritten.extend(rest.iter().map(|(user, _)| *user));
                return Err(error);
            }
        }
        Ok(())
    }
}

impl Cache {
    fn record(&mut self, user: UserId, name: &str) -> bool {
        if self.names.len() >= MAX_CACHED && self.unwritten.is_empty() {
            self.names.clear();
        }
        match self.names.entry(user) {
            Entry::Occupied(known) if known.get() == name => return false,
            Entry::Occupied(mut known) => drop(known.insert(name.to_owned())),
            Entry::Vacant(vacant) => drop(vacant.insert(name.to_owned())),
        }
        self.unwritten.insert(user);
        true
    }

    fn take_unwritten(&mut self, is_chosen: impl Fn(&UserId) -> bool) -> Vec<(UserId, String)> {
        let chosen: Vec<_> = self.unwritten.extract_if(is_chosen).collect();
        chosen.into_iter().filter_map(|user| Some((user, self.names.get(&user)?.clone()))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_name_is_recorded_and_taken_to_be_written_once() {
        let [ada, bob] = [1, 2].map(|id| UserId::new(id).expect("an id"));
        let mut cache = Cache::default();
        assert!(cache.record(ada, "Ada") && cache.record(bob, "Bob"));
        assert!(!cache.record(ada, "Ada"), "nothing new");
        assert_eq!(cache.take_unwritten(|user| *user == bob), [(bob, "Bob".to_owned())]);
        assert!(cache.record(ada, "Ada L."));
        assert_eq!(cache.take_unwritten(|_| true), [(ada, "Ada L.".to_owned())]);
        assert_eq!(cache.take_unwritten(|_| true), []);
    }

    #[test]
    fn names_that_are_not_written_yet_are_not_forgotten() {
        let mut cache = Cache::default();
        let user = |id: usize| UserId::new(id as u64).expect("an id");
        for id in 0..2 * MAX_CACHED {
            cache.record(user(id), "somebody");
        }
        assert_eq!(cache.names.len(), 2 * MAX_CACHED);
        cache.take_unwritten(|_| true);
        cache.record(user(0), "Ada");
        assert_eq!(cache.names.len(), 1);
    }
}
