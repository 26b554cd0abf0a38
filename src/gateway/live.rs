//! The gateway's side of the service's port: the state of live rooms, and the users that are connected.

use std::sync::Weak;

use super::{people::directory::Directory, rooms::Rooms};
use crate::{
    domain::{
        access::Caller,
        error::Result,
        id::{LocationId, UserId},
        presence::ActiveUsers,
    },
    service::{Current, LiveRooms, RoomSize, Service},
};

/// Answers the service. It holds no strong reference, because rooms and directory belong to the gateway.
#[derive(Debug)]
pub struct LiveGateway {
    pub service: Weak<Service>,
    pub rooms: Weak<Rooms>,
    pub directory: Weak<Directory>,
}

impl LiveRooms for LiveGateway {
    fn current(&self, by: &Caller, id: LocationId) -> Option<Result<Current>> {
        self.rooms.upgrade()?.current(by, id)
    }

    fn room_size(&self, by: &Caller, id: LocationId) -> RoomSize {
        self.rooms.upgrade().map(|rooms| rooms.size(by, id)).unwrap_or_default()
    }

    fn active_users(&self) -> ActiveUsers {
        self.directory.upgrade().map(|directory| directory.active_users()).unwrap_or_default()
    }

    fn rename(&self, user: UserId) {
        if let (Some(directory), Some(service)) = (self.directory.upgrade(), self.service.upgrade()) {
            directory.rename(user, |user| service.names.get(user));
        }
    }
}
