//! Events: what has happened, as values. They travel through one channel from whoever changes something to the
//! gateway, which forwards them to rooms and users in the order in which they were sent.

use std::sync::Arc;

use super::{
    access::{Payer, RightsChange},
    id::{LocationId, UserId},
    location::Committed,
    notification::AddressedNotice,
};

/// A change. Events of one location come in the order of their commits, those of a user or a room in the order in
/// which they were seen.
#[derive(Debug)]
pub enum Event {
    /// A PUT was committed: the location as it now stands.
    Updated(Arc<Committed>),
    /// The location was deleted, and its room closes.
    Deleted(LocationId),
    /// The rights of a member or a guest to a location have changed.
    RightsChanged {
        id: LocationId,
        change: RightsChange,
        /// The number of such changes of the location so far, this one included.
        grants: u64,
    },
    /// The lists of locations that some users see have changed.
    ListChanged {
        change: ListChange,
        /// The users whose lists have changed, admins aside.
        to: Arc<[UserId]>,
        /// Whether the lists of admins have changed, too: not where only the rights of others have.
        and_admins: bool,
        /// The caller who pays for sending it; `None`: nobody pays.
        payer: Option<Payer>,
        /// Whether the payer may send only a limited number of whole locations to each user: everybody but admins.
        is_bounded: bool,
    },
    /// A notice was stored, and its recipients are to be notified.
    Notified(AddressedNotice),
    /// A mark with a number. The gateway reports the number back once it has handled every event sent before.
    Mark(u64),
    /// A fault: handling it panics.
    #[cfg(test)]
    Panic,
}

/// A change of a list of locations.
#[derive(Clone, Debug)]
pub enum ListChange {
    /// The location is new, or the recipients have just gained the right to see it.
    Created(Arc<Committed>),
    /// A PUT without geometry, or one that renamed the location. Moves alone are sent only into the room.
    Updated(Arc<Committed>),
    /// The location is gone, or the recipients may no longer see it.
    Deleted(LocationId, RemovalReason),
}

/// The reason why a location is no longer in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemovalReason {
    Deleted,
    /// The right to see it was given and taken away within moments, by the same caller: the recipients asked for
    /// nothing that the list has told them of it.
    TakenBack,
    /// The right to see it has ended. A connection that does not soon read what was sent of it is closed.
    Withdrawn,
}
