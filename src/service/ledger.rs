//! What is noted in memory and written now and then, because nobody waits for it: how often share links were
//! used, and what users are called. A crash loses the last few seconds of it.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    sync::Weak,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::sleep;

use crate::{
    domain::{access::ShareId, error::Result, id::UserId, time::Timestamp},
    storage::Store,
};

/// How long a note may wait.
const EVERY: Duration = Duration::from_secs(2);
/// Users whose written name is remembered; over that all are written again.
const REMEMBERED: usize = 10_000;

/// Names of one statement; SQLite takes 32,766 parameters.
const TOGETHER: usize = 1_000;

/// The notes. Written by whoever meets a caller, emptied by [`keep`].
#[derive(Debug, Default)]
pub struct Ledger {
    uses: Mutex<HashMap<ShareId, (u64, Timestamp)>>,
    names: Mutex<Names>,
}

#[derive(Debug, Default)]
struct Names {
    /// As they were last heard.
    heard: HashMap<UserId, String>,
    /// Still to be written.
    new: HashSet<UserId>,
}

impl Ledger {
    /// Somebody came by a share link.
    pub fn used(&self, share: ShareId) {
        let mut uses = self.uses.lock();
        let (count, last) = uses.entry(share).or_insert((0, Timestamp::now()));
        (*count, *last) = (*count + 1, Timestamp::now());
    }

    /// A token says what a user is called.
    pub fn named(&self, user: UserId, name: &str) {
        let Names { heard, new } = &mut *self.names.lock();
        if heard.len() >= REMEMBERED && new.is_empty() {
            heard.clear();
        }
        match heard.entry(user) {
            Entry::Occupied(known) if known.get() == name => return,
            Entry::Occupied(mut known) => drop(known.insert(name.to_owned())),
            Entry::Vacant(vacant) => drop(vacant.insert(name.to_owned())),
        }
        new.insert(user);
    }

    /// Those of these users that were heard, and may not be written yet.
    pub fn names(&self, users: &[UserId]) -> Vec<(UserId, String)> {
        let names = self.names.lock();
        users.iter().filter_map(|user| Some((*user, names.heard.get(user)?.clone()))).collect()
    }

    /// Writes what is noted; what cannot be written stays noted.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn write(&self, store: &Store) -> Result<()> {
        let uses = std::mem::take(&mut *self.uses.lock());
        let counted: Vec<_> = uses.iter().map(|(share, (count, last))| (*share, *count, *last)).collect();
        if !counted.is_empty()
            && let Err(error) = store.count_uses(&counted).await
        {
            let mut now = self.uses.lock();
            for (share, (count, last)) in uses {
                let (sum, newest) = now.entry(share).or_insert((0, last));
                (*sum, *newest) = (*sum + count, last.max(*newest));
            }
            return Err(error);
        }
        let names: Vec<_> = {
            let Names { heard, new } = &mut *self.names.lock();
            let names = new.iter().filter_map(|user| Some((*user, heard.get(user)?.clone())));
            let names = names.collect();
            new.clear();
            names
        };
        let borrowed: Vec<_> = names.iter().map(|(user, name)| (*user, name.as_str())).collect();
        for (done, some) in borrowed.chunks(TOGETHER).enumerate() {
            if let Err(error) = store.name_users(some).await {
                let left = borrowed[done * TOGETHER..].iter().map(|(user, _)| *user);
                self.names.lock().new.extend(left);
                return Err(error);
            }
        }
        Ok(())
    }
}

/// Writes the notes now and then, as long as anybody takes any.
pub async fn keep(ledger: Weak<Ledger>, store: Store) {
    loop {
        sleep(EVERY).await;
        let Some(ledger) = ledger.upgrade() else { return };
        if let Err(error) = ledger.write(&store).await {
            tracing::debug!(%error, "notes wait for the database");
        }
    }
}
