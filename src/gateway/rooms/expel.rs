//! Keeping to rights (`rights.rs`): reading those of a room's location, and taking out members whose right has ended.

use std::sync::Arc;

use parking_lot::MutexGuard;
use serde_json::json;
use tracing::info;

use super::{
    presence::Leaving,
    registry::{Entrant, Member, Rooms, SharedRoom},
    rights::Rights,
};
use crate::{
    domain::{
        access::{Caller, Payer, RightsChange, Role},
        error::{Code, Result},
        id::LocationId,
        time::Timestamp,
    },
    gateway::socket::outbox::{Kind, Outbox, body},
};

impl Rooms {
    /// Takes a change of rights. Members that may no longer be in the room are taken out, then told.
    pub fn change_rights(&self, id: LocationId, change: RightsChange, grants: u64) {
        let Some(room) = self.room(id) else { return };
        let mut rights = room.rights.lock();
        if rights.apply(change, grants) {
            self.expel(&room, rights);
        }
    }

    /// Reads rights to a room's location again, and takes out members that have none.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn refresh_rights(&self, id: LocationId) -> Result<()> {
        let Some(entrant) = Entrant::of_existing(self, id) else { return Ok(()) };
        let _reading = entrant.room.last_read.lock().await;
        match self.replace_rights(&entrant.room).await {
            // The sweep closes the room.
            Err(error) if error.code == Code::NotFound => Ok(()),
            read => read.map(drop),
        }
    }

    /// Reads rights to a room's location, unless they are known.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn ensure_rights(&self, id: LocationId) -> Result<()> {
        let is_known = self.room(id).is_none_or(|room| room.rights.lock().are_known());
        if is_known { Ok(()) } else { self.refresh_rights(id).await }
    }

    /// Reads the role of a caller from one row.
    pub(super) async fn read_role(
        &self,
        payer: Payer,
        caller: &Caller,
        id: LocationId,
    ) -> Result<Option<Role>> {
        let _share = self.reads.share(payer).await?;
        let _permit = self.reads.permit().await?;
        self.service.role(caller, id).await
    }

    /// Reads rights to a location for a caller that may see it, unless they were read in the meantime.
    pub(super) async fn read_rights(
        &self,
        room: &Arc<SharedRoom>,
        payer: Payer,
        caller: &Caller,
    ) -> Result<()> {
        self.service.limits.check_rows(payer)?;
        let _share = self.reads.share(payer).await?;
        let _reading = room.last_read.lock().await;
        if room.rights.lock().role(caller, room.id).is_err() {
            let rows = self.replace_rights(room).await?;
            self.service.limits.record_rows(payer, rows);
        }
        Ok(())
    }

    /// Reads rights and returns the number of rows. The caller holds the lock of `last_read`.
    async fn replace_rights(&self, room: &Arc<SharedRoom>) -> Result<usize> {
        room.rights.lock().begin_read();
        let read = async {
            let _permit = self.reads.permit().await?;
            self.metrics.access_reads.inc();
            self.service.access(room.id).await
        };
        let read = read.await;
        let mut rights = room.rights.lock();
        let rows = rights.end_read(read)?;
        self.expel(room, rights);
        Ok(rows)
    }

    /// Takes out members that have no right to be in the room. Those that do not soon read what they were sent of it
    /// are disconnected.
    fn expel(&self, room: &Arc<SharedRoom>, rights: MutexGuard<'_, Rights>) {
        let id = room.id;
        // A role that is not known matters for nobody in the room.
        let is_stranger =
            |member: &Member| matches!(rights.role(&member.subscriber.session.caller(), id), Ok(None));
        let gone = room.state.lock().expel(is_stranger);
        for (member, _) in &gone {
            self.change_occupant(room, Some(member.occupant), None, Leaving::ForGood);
        }
        let unread = send_closed(id, gone, |caller| match caller {
            Caller::Guest(guest) if guest.expires_at <= Timestamp::now() => "expired",
            _ => "revoked",
        });
        Outbox::withdraw(unread);
        drop(rights);
        self.remove_if_empty(room);
    }

    /// Takes out members that have no right to be in a room, after somebody's time has ended or token has changed.
    pub fn recheck(&self, id: LocationId) {
        let Some(room) = self.room(id) else { return };
        self.expel(&room, room.rights.lock());
    }
}

/// Tells members that were taken out of a room, each given with a mark behind the last position it was sent. It returns
/// the outboxes of those that have not read all of it, for [`Outbox::withdraw`].
#[must_use]
pub(super) fn send_closed(
    id: LocationId,
    gone: Vec<(Member, u64)>,
    reason: impl Fn(&Caller) -> &'static str,
) -> Vec<(Arc<Outbox>, u64)> {
    let room_name = &id.to_string();
    let unread = gone.into_iter().filter_map(|(Member { connection, subscriber, .. }, mark)| {
        let session = &subscriber.session;
        let reason = reason(&session.caller());
        info!(socket = subscriber.handle.log_name(), room = %id, user = %session.log_user(), reason, "room closed");
        session.leave(id);
        // The mark is of this room alone: the socket may see what else is unread.
        let mark = subscriber.handle.outbox.drop_room_events(id).unwrap_or_default().max(mark);
        subscriber.handle.send(Kind::Event("room_closed"), body(&json!({"roomName": room_name, "reason": reason})));
        (!connection.has_read_to(mark)).then(|| (subscriber.handle.outbox.clone(), mark))
    });
    unread.collect()
}
