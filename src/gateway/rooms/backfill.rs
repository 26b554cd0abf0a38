//! Reading versions from the database: those that a room lacks, and those that somebody who joins needs.
//!
//! A room reads once at a time, for all who wait.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::time::sleep;
use tracing::debug;

use super::{
    registry::{Entrant, LastRead, Rooms, SharedRoom},
    room::{Entry, MAX_MISSED, TURN},
    turns::update,
};
use crate::domain::{
    access::Payer,
    error::{Code, Error, Result},
    id::LocationId,
};

/// The pause after a read that did not bring what the room lacks.
const RETRY_DELAY: Duration = Duration::from_secs(1);

impl Rooms {
    /// Reads the versions that a room lacks, unless another task is doing so.
    pub async fn backfill(&self, id: LocationId) {
        let Some(entrant) = Entrant::of_existing(self, id) else { return };
        let room = &entrant.room;
        let Ok(backfilling) = room.backfilling.try_lock() else { return };
        loop {
            let before = room.state.lock().head();
            let read = self.read_missing(room, None).await;
            let state = room.state.lock();
            if !state.has_gap() {
                // Under the lock of the state: a task that finds a gap after this must be able to begin.
                drop(backfilling);
                return;
            }
            if read.is_err() || state.head() == before {
                break;
            }
        }
        sleep(RETRY_DELAY).await;
        drop(backfilling);
        self.behind.lock().insert(id);
    }

    /// Reads for a caller that joins. Only some of its reads run at once, and it pays for them.
    pub(super) async fn read_for(
        &self,
        payer: Payer,
        room: &Arc<SharedRoom>,
        since: Option<u64>,
    ) -> Result<()> {
        self.service.limits.check_rows(payer)?;
        let _share = self.reads.share(payer).await?;
        let rows = self.read_missing(room, since).await?;
        // The newest version is part of the price of every join, so it is not paid for again.
        self.service.limits.record_rows(payer, rows.saturating_sub(1));
        Ok(())
    }

    /// Reads what a room lacks or what somebody who has `since` needs, unless that was read in the meantime: one read
    /// serves all who wait for it. It returns the number of rows that were read.
    pub(super) async fn read_missing(&self, room: &Arc<SharedRoom>, since: Option<u64>) -> Result<usize> {
        let waiting_since = Instant::now();
        let mut last_read = room.last_read.lock().await;
        let began_at = Instant::now();
        let from = {
            let state = room.state.lock();
            if state.entry(since, false) != Entry::NeedsRead && !state.has_gap() {
                return Ok(0);
            }
            state.read_from(began_at)
        };
        // A read that began after this caller came was for it too: the room knew of all who waited.
        match &*last_read {
            Some(read) if read.began_at >= waiting_since && read.has_succeeded => return Ok(0),
            Some(read) if read.began_at >= waiting_since => return Err(Error::database_away()),
            _ => {}
        }
        let read = self.read_versions(room, from).await;
        match &read {
            Err(error) if error.code == Code::NotFound => self.close_deleted(room.id),
            _ => *last_read = Some(LastRead { began_at, has_succeeded: read.is_ok() }),
        }
        read
    }

    /// Reads the versions from `from` on, or only the newest, and gives them to the room.
    async fn read_versions(&self, room: &Arc<SharedRoom>, from: Option<u64>) -> Result<usize> {
        let id = room.id;
        let run: Vec<_> = {
            let _permit = self.reads.permit().await?;
            let run = self.service.newest(id, from, MAX_MISSED + 1).await?;
            debug!(room = %id, from, versions = run.len(), "versions were read for a room");
            run.into_iter().map(|location| update(&location.into())).collect()
        };
        let rows = run.len();
        if let Some(newest) = run.last() {
            room.feature_bytes.store(newest.message().len(), Ordering::Relaxed);
        }
        let mut state = room.state.lock();
        state.on_read(run, Instant::now());
        self.serve(room, &mut state, TURN);
        if state.has_gap() {
            self.behind.lock().insert(id);
        }
        Ok(rows)
    }
}
