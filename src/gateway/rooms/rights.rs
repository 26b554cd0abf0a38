//! Who may be in a room: what the room knows of rights, and taking out those whose right has ended.

use std::sync::Arc;

use parking_lot::MutexGuard;
use serde::Serialize;
use tracing::info;

use super::{Door, Member, Rooms, Shared, Visit, presence::Leaving};
use crate::{
    domain::{
        access::{Caller, Payer, RightsChange, Role},
        error::{Code, Result},
        id::LocationId,
        time::Timestamp,
    },
    gateway::socket::{
        outbox::{Outbox, body},
        session::log_name,
    },
};

/// The body of `room_closed`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RoomClosed<'a> {
    room_name: &'a str,
    reason: &'static str,
}

impl Rooms {
    /// Takes over a change of rights: who may no longer be in the room is taken out, then told.
    pub fn granted(&self, id: LocationId, change: RightsChange, grants: u64) {
        let Some(shared) = self.room(id) else { return };
        let mut door = shared.door.lock();
        if let Some(heard) = &mut door.heard {
            heard.push(change);
        }
        let Some(access) = &mut door.access else { return };
        access.apply(change);
        if grants == access.grants + 1 {
            access.grants = grants;
        }
        self.expel(&shared, door);
    }

    /// Reads rights to a room's location anew, and takes out who has none.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn refresh(&self, id: LocationId) -> Result<()> {
        let Some(visit) = Visit::to_live(self, id) else { return Ok(()) };
        let _turn = visit.shared.turn.lock().await;
        match self.learn_access(&visit.shared).await {
            // The sweep closes it.
            Err(error) if error.code == Code::NotFound => Ok(()),
            read => read.map(drop),
        }
    }

    /// Reads rights to a room's location, unless they are known.
    ///
    /// # Errors
    /// `storage_unavailable`, `internal`.
    pub async fn know(&self, id: LocationId) -> Result<()> {
        let is_known = self.room(id).is_none_or(|shared| shared.door.lock().access.is_some());
        if is_known { Ok(()) } else { self.refresh(id).await }
    }

    /// What a caller is to a location, as far as that is known without asking the database.
    pub(super) fn known_role(&self, caller: &Caller, id: LocationId) -> Option<Option<Role>> {
        match self.room(id) {
            Some(shared) => shared.door.lock().role(caller, id),
            None => Door::default().role(caller, id),
        }
    }

    /// The same from the database, by one row.
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

    /// Reads rights to a location for somebody who may see it, unless somebody else has done so meanwhile.
    pub(super) async fn read_access(
        &self,
        shared: &Arc<Shared>,
        payer: Payer,
        caller: &Caller,
    ) -> Result<()> {
        self.service.limits.check_rows(payer)?;
        let _share = self.reads.share(payer).await?;
        let _turn = shared.turn.lock().await;
        if !shared.door.lock().knows(caller) {
            let rows = self.learn_access(shared).await?;
            self.service.limits.record_rows(payer, rows);
        }
        Ok(())
    }

    /// With the room's turn to read; returns how many rows there were.
    async fn learn_access(&self, shared: &Arc<Shared>) -> Result<usize> {
        shared.door.lock().heard = Some(Vec::new());
        let read = async {
            let _permit = self.reads.permit().await?;
            self.counts.access_reads.inc();
            self.service.access(shared.id).await
        };
        let read = read.await;
        let mut door = shared.door.lock();
        // What was committed before the read is in it already, and does no harm a second time.
        let heard = door.heard.take().unwrap_or_default();
        let mut access = read?;
        let rows = access.members.len() + access.shares.len();
        heard.into_iter().for_each(|change| access.apply(change));
        door.access = Some(access);
        self.expel(shared, door);
        Ok(rows)
    }

    /// Takes out of a room who has no right to be there.
    fn expel(&self, shared: &Arc<Shared>, door: MutexGuard<'_, Door>) {
        let id = shared.id;
        let gone = shared.room.lock().expel(|member| {
            // Not known: of nobody in the room does it matter.
            door.role(&member.session.caller(), id).is_some_and(|role| role.is_none())
        });
        for (member, _) in &gone {
            self.moved(shared, Some(member.user), None, Leaving::ForGood);
        }
        let withdrawn = tell_closed(id, gone, |caller| match caller {
            Caller::Guest(guest) if guest.expires_at <= Timestamp::now() => "expired",
            _ => "revoked",
        });
        Outbox::withdraw(withdrawn);
        drop(door);
        self.drop_if_empty(shared);
    }

    /// Somebody's time is over, or their token another: takes out who has no right to be in a room.
    pub fn recheck(&self, id: LocationId) {
        let Some(shared) = self.room(id) else { return };
        self.expel(&shared, shared.door.lock());
    }
}

/// Those who were taken out of a room learn it, and nothing more of the room. Each comes with a mark behind the last
/// position it was sent. Returns who has not read all of it, for [`Outbox::withdraw`].
#[must_use]
pub(super) fn tell_closed(
    id: LocationId,
    gone: Vec<(Member, u64)>,
    reason: impl Fn(&Caller) -> &'static str,
) -> Vec<(Arc<Outbox>, u64)> {
    let name = id.to_string();
    let unread = gone.into_iter().filter_map(|(Member { connection, socket, outbox, session, .. }, mark)| {
        let reason = reason(&session.caller());
        info!(socket = log_name(&socket), room = %id, user = %session.name(), reason, "room closed");
        session.leave(id);
        // Of this room alone: what else is unread is still theirs.
        let mark = outbox.drop_room_events(id).unwrap_or_default().max(mark);
        outbox.send_event(&socket, "room_closed", body(&RoomClosed { room_name: &name, reason }));
        (!connection.has_read_to(mark)).then_some((outbox, mark))
    });
    unread.collect()
}
