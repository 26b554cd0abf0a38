//! What becomes of a room after a panic over it: it is read anew, or given up; the others go on.
//!
//! A file of its own because none of this happens as long as there is no fault. Where panics are caught is said where the
//! work is done (`gateway/forward.rs`, `gateway/rooms.rs`, `gateway/herald.rs`, `gateway/messages.rs`).

use tracing::{debug, warn};

use super::{Member, Rooms};
use crate::{
    domain::id::LocationId,
    gateway::link::Why,
    supervise::{Supervisor, Task},
};

/// The tasks that work on many rooms.
pub struct Tasks {
    pub forwarder: Task,
    pub sweep: Task,
    pub herald: Task,
    /// Reads for one room each.
    pub reads: Task,
    /// Events of one socket each.
    pub events: Task,
}

/// A room for which the handling of an event panicked.
#[derive(Debug)]
pub struct Broken {
    pub id: LocationId,
    /// The version that it may not have heard of.
    pub version: Option<u64>,
}

impl Tasks {
    /// Of one gateway.
    pub fn of(tasks: &Supervisor) -> Self {
        Self {
            forwarder: tasks.task("forwarder"),
            sweep: tasks.task("sweep"),
            herald: tasks.task("herald"),
            reads: tasks.task("room_reads"),
            events: tasks.task("socket_events"),
        }
    }
}

impl Rooms {
    /// A room cannot be brought up to date: its members are to connect again, and find another room of that name.
    pub(super) fn give_up(&self, id: LocationId) {
        let Some(shared) = self.rooms.lock().remove(&id) else { return };
        let members: Vec<_> = shared.room.lock().close().collect();
        warn!(room = %id, members = members.len(), "a room is given up after a panic: its members are to connect again");
        for (Member { outlet, session, .. }, _) in members {
            session.leave(id);
            outlet.cut(Why::StalledInReplay);
        }
    }

    /// After a panic over an event of a room: reads anew who may be in it, and the versions it may have missed.
    pub async fn heal(&self, Broken { id, version }: Broken) {
        let Some(shared) = self.room(id) else { return };
        if let Some(access) = &mut shared.door.lock().access {
            // If the read below fails, the sweep finds that rights have been changed since.
            access.grants = 0;
        }
        if let Some(version) = version {
            shared.room.lock().expect(version);
        }
        drop(shared);
        self.behind.lock().insert(id);
        if let Err(error) = self.refresh(id).await {
            debug!(room = %id, %error, "rights");
        }
        self.fill(id).await;
    }
}
