//! Changes that are buffered in memory and written every few seconds, because nobody waits for them: the uses of share
//! links, and the names of users. A crash loses the last few seconds of them.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::sleep;

use super::names::Names;
use crate::{
    domain::{error::Result, id::ShareId, time::Timestamp},
    storage::{ShareUses, Writer},
};

/// The interval at which buffered changes are written.
const WRITE_INTERVAL: Duration = Duration::from_secs(2);

/// The buffered changes.
#[derive(Debug)]
pub struct WriteBehind {
    names: Arc<Names>,
    writer: Writer,
    /// The number of uses of each share link, and the time of the last. Written when a guest is authenticated.
    uses: Mutex<HashMap<ShareId, (u64, Timestamp)>>,
}

impl WriteBehind {
    /// Creates an empty buffer.
    pub fn new(names: Arc<Names>, writer: Writer) -> Self {
        Self { names, writer, uses: Mutex::default() }
    }

    /// Records a use of a share link.
    pub fn record_use(&self, share: ShareId) {
        self.add([(share, (1, Timestamp::now()))]);
    }

    fn add(&self, uses: impl IntoIterator<Item = (ShareId, (u64, Timestamp))>) {
        let mut buffered = self.uses.lock();
        for (share, (count, last_at)) in uses {
            let (sum, newest) = buffered.entry(share).or_insert((0, last_at));
            (*sum, *newest) = (*sum + count, last_at.max(*newest));
        }
    }

    /// Writes the buffered changes. What cannot be written stays in the buffer.
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
            self.add(uses);
            return Err(error);
        }
        self.names.write().await
    }
}

/// Writes the buffered changes every few seconds, until the buffer is dropped.
pub async fn run(write_behind: Weak<WriteBehind>) {
    loop {
        sleep(WRITE_INTERVAL).await;
        let Some(write_behind) = write_behind.upgrade() else { return };
        if let Err(error) = write_behind.write().await {
            tracing::debug!(%error, "buffered changes wait for the database");
        }
    }
}
