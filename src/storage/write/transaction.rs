//! A transaction: it locks what its acts concern, collects what they write, and is committed with a proof.
//!
//! The files of the acts use it; [`super::batch`] calls them one after the other.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use sea_orm::{DatabaseTransaction, DbErr};

use super::{
    act::Act,
    audience::Effects,
    locked::{LockedLocations, Locking},
    notifications,
    proof::Proof,
    versions::Versions,
};
use crate::{
    domain::{event::Event, time::Timestamp},
    storage::{
        error::{DbResult, is_deadlock},
        pool::Store,
        sql::Dialect,
    },
};

/// A transaction under way.
pub struct Transaction<'a> {
    pub store: &'a Store,
    pub tx: DatabaseTransaction,
    /// The time at which its acts happen.
    pub now: Timestamp,
    pub dialect: Dialect,
    pub locations: LockedLocations,
    pub versions: Versions,
    pub effects: Effects,
    /// Whether an act has written anything besides [`Self::versions`].
    pub has_written: bool,
}

/// A transaction in which everything is written.
pub struct Written {
    tx: DatabaseTransaction,
    /// The proof that it was committed; `None`: it changes nothing.
    proof: Option<Proof>,
}

/// The reason why a transaction was not committed, as far as it is known.
#[derive(Debug)]
pub enum CommitError {
    /// The transaction was rolled back.
    RolledBack(DbErr),
    /// COMMIT was sent and not confirmed. The proof says whether it was carried out.
    Unconfirmed(Proof, DbErr),
}

impl<'a> Transaction<'a> {
    /// Begins a transaction and locks the locations that its acts change.
    pub async fn begin(store: &'a Store, acts: &[Act], locking: Locking) -> DbResult<Self> {
        let tx = store.begin().await?;
        // The time of the acts is that of their locks: later versions have later times.
        let locations = LockedLocations::lock(&tx, acts, locking).await?;
        let (now, dialect) = (locations.now, store.dialect());
        let versions = Versions::new(dialect, now);
        let effects = Effects::default();
        Ok(Self { store, tx, now, dialect, locations, versions, effects, has_written: false })
    }

    /// Writes what is collected; returns the events that follow the acts, by the acts' numbers.
    pub async fn write(self, last_proof: &mut Proof) -> DbResult<(Written, Vec<(usize, Event)>)> {
        let Self { store, tx, now, dialect, locations, versions, effects, has_written } = self;
        // First: the members of removed locations are still there, and where too many have to be told, less is
        // rolled back.
        let events = if effects.is_empty() {
            Vec::new()
        } else {
            // Rare, and its future is large.
            Box::pin(async {
                let members = effects.read_members(&tx).await?;
                let notices = notifications::store(store, &tx, &effects.activities, &members).await?;
                Ok::<_, DbErr>(effects.into_events(&members, notices))
            })
            .await?
        };
        let proof = (has_written || !versions.is_empty()).then(|| last_proof.advance());
        if let Some(proof) = proof {
            versions.write(&tx, locations.iter(), proof.rows(dialect, now)).await?;
        }
        Ok((Written { tx, proof }, events))
    }
}

impl Written {
    /// Commits the transaction.
    pub async fn commit(self, store: &Store) -> Result<(), CommitError> {
        // A panic here says as little about what was committed as a connection that breaks.
        let committed = AssertUnwindSafe(store.on_writer(self.tx.commit())).catch_unwind().await;
        match committed.unwrap_or_else(|_| Err(DbErr::Custom("panic at COMMIT".into()))) {
            Ok(()) => Ok(()),
            Err(error) if is_deadlock(&error) => Err(CommitError::RolledBack(error)),
            Err(error) => {
                store.abandon();
                // Whether a transaction that changes nothing was committed makes no difference.
                self.proof.map_or(Ok(()), |proof| Err(CommitError::Unconfirmed(proof, error)))
            }
        }
    }
}
