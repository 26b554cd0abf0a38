//! What is noted in memory and written now and then, because nobody waits for it: how often share links were
//! used, and what users are called. A crash loses the last few seconds of it.

use std::{collections::HashMap, sync::Weak, time::Duration};

use parking_lot::Mutex;
use tokio::time::sleep;

use crate::{
    domain::{error::Result, id::ShareId, time::Timestamp},
    storage::{ShareUses, Store, Writer},
};

/// How long a note may wait.
const EVERY: Duration = Duration::from_secs(2);
/// Names of one statement; SQLite takes 32,766 parameters.
const TOGETHER: usize = 1_000;

/// The notes, besides names, which the store has. Written by whoever meets a caller, emptied by [`run`].
#[derive(Debug)]
pub struct WriteBehind {
    store: Store,
    writer: Writer,
    uses: Mutex<HashMap<ShareId, (u64, Timestamp)>>,
}

impl WriteBehind {
    /// Begins without notes.
    pub fn new(store: Store, writer: Writer) -> Self {
        Self { store, writer, uses: Mutex::default() }
    }

    /// Somebody came by a share link.
    pub fn used(&self, share: ShareId) {
        let mut uses = self.uses.lock();
        let (count, last) = uses.entry(share).or_insert((0, Timestamp::now()));
        (*count, *last) = (*count + 1, Timestamp::now());
    }

    /// Writes what is noted; what cannot be written stays noted.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn write(&self) -> Result<()> {
        let uses = std::mem::take(&mut *self.uses.lock());
        let counted = uses.iter().map(|(share, (count, last_at))| ShareUses {
            share: *share,
            count: *count,
            last_at: *last_at,
        });
        if !uses.is_empty()
            && let Err(error) = self.writer.count_uses(counted.collect()).await
        {
            let mut now = self.uses.lock();
            for (share, (count, last)) in uses {
                let (sum, newest) = now.entry(share).or_insert((0, last));
                (*sum, *newest) = (*sum + count, last.max(*newest));
            }
            return Err(error);
        }
        let names = self.store.names.take_new();
        for (done, some) in names.chunks(TOGETHER).enumerate() {
            if let Err(error) = self.writer.name_users(some.to_vec()).await {
                self.store.names.put_back(names[done * TOGETHER..].iter().map(|(user, _)| *user));
                return Err(error);
            }
        }
        Ok(())
    }
}

/// Writes the notes now and then, as long as anybody takes any.
pub async fn run(write_behind: Weak<WriteBehind>) {
    loop {
        sleep(EVERY).await;
        let Some(write_behind) = write_behind.upgrade() else { return };
        if let Err(error) = write_behind.write().await {
            tracing::debug!(%error, "buffered changes wait for the database");
        }
    }
}
