//! What happened, as a value: the seam between the writer and everyone who must hear of it.

use std::{any::Any, sync::Arc};

use super::{
    access::{Change, Payer},
    id::{LocationId, UserId},
    location::Committed,
    notification::Told,
    presence::{self, Active},
};

/// One change: those of a location in the order of their commits, those of a user or a room as they were seen.
#[derive(Debug)]
pub enum Event {
    /// A PUT was committed: the location as it now stands.
    Updated(Arc<Committed>),
    /// The location is gone, and its room with it.
    Deleted(LocationId),
    /// Somebody's rights to the location have changed.
    Granted {
        /// Which location.
        id: LocationId,
        /// Whose, and to what.
        change: Change,
        /// How many such changes there were, this included.
        grants: u64,
    },
    /// Somebody has come into a room or gone, or there is another number of them.
    Presence(presence::Change),
    /// Users who have connected, gone, or are called otherwise: their rows of the list of all.
    Active(Vec<Active>),
    /// What somebody sees in their list of locations has changed.
    Listed {
        /// How.
        change: Listed,
        /// Whose list, besides admins'.
        to: Arc<[UserId]>,
        /// Whether admins', too; not where only the rights of others have changed.
        and_admins: bool,
        /// The caller on whose account it is sent; `None`: nobody's.
        payer: Option<Payer>,
        /// Whether the payer may send each person only so much of it whole: everybody but admins.
        is_bounded: bool,
    },
    /// People are told of something; it is stored.
    Notified(Told),
    /// Nothing: somebody wants to know when all before it has been taken in, and is told by its being dropped.
    Asked(Box<dyn Any + Send + Sync>),
}

/// A change of a list of locations.
#[derive(Clone, Debug)]
pub enum Listed {
    /// It is new, or new to them.
    Created(Arc<Committed>),
    /// A PUT without geometry, or of another name: those who want to see it move are in its room.
    Updated(Arc<Committed>),
    /// It is gone, or they may no longer see it.
    Deleted(LocationId, Ending),
}

/// Why a location is no longer in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It is gone.
    Deleted,
    /// Their right to see it was taken away a moment after it was given, by the same caller: they asked for nothing
    /// that the list told them of it.
    TakenBack,
    /// Their right to see it has ended: what they have not read of it yet is worth their connection.
    Withdrawn,
}
