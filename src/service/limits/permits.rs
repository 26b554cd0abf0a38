//! What callers have at one time: sockets that are connected, and the rooms that these are in.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use parking_lot::Mutex;

use super::{Limits, Making, SECOND, payer};
use crate::{
    domain::{
        access::Payer,
        error::{Error, Result},
        id::UserId,
    },
    metrics::Counter,
};

/// What all callers have, and how much of it there may be.
#[derive(Debug)]
pub struct Permits {
    sockets: MaxCount,
    user_sockets: MaxCount,
    address_sockets: MaxCount,
    socket_rooms: MaxCount,
    user_rooms: MaxCount,
    address_rooms: MaxCount,
    /// Written when sockets come and go, and when they enter and leave rooms. Callers who have neither sockets nor
    /// rooms have no entry, so it is bounded by the number of sockets.
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: u32,
    by: HashMap<Payer, Share>,
}

/// What one caller has of sockets and, over all of these, of rooms.
#[derive(Debug, Default)]
struct Share {
    sockets: u32,
    rooms: u32,
}

/// How much there may be of something at once.
#[derive(Debug)]
pub struct MaxCount {
    pub most: Option<u32>,
    pub limited: Counter,
}

/// A socket's place among those connected, given back with it.
#[derive(Debug)]
pub struct SocketPermit {
    limits: Arc<Limits>,
    payer: Payer,
}

/// The rooms that one socket is in, counted for its caller; given back with it.
#[derive(Debug)]
pub struct RoomPermits {
    limits: Arc<Limits>,
    payer: Payer,
    rooms: u32,
}

impl Permits {
    /// None taken.
    pub fn new(made: &Making<'_>) -> Self {
        Self {
            sockets: made.most("sockets", |counts| counts.sockets),
            user_sockets: made.most("user_sockets", |counts| counts.user_sockets),
            address_sockets: made.most("address_sockets", |counts| counts.address_sockets),
            socket_rooms: made.most("socket_rooms", |counts| counts.socket_rooms),
            user_rooms: made.most("user_rooms", |counts| counts.user_rooms),
            address_rooms: made.most("address_rooms", |counts| counts.address_rooms),
            taken: Mutex::default(),
        }
    }
}

impl Limits {
    /// The rooms of a socket that connects.
    pub fn room_permits(self: &Arc<Self>, payer: Payer) -> RoomPermits {
        RoomPermits { limits: self.clone(), payer, rooms: 0 }
    }

    /// A socket connects, with a token of `user` or else from this address.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn admit_socket(self: &Arc<Self>, user: Option<UserId>, from: IpAddr) -> Result<SocketPermit> {
        let payer = payer(user, from);
        let Permits { sockets, user_sockets, address_sockets, taken, .. } = &self.permits;
        let mut taken = taken.lock();
        sockets.check(taken.all, "sockets")?;
        let theirs = taken.by.get(&payer).map_or(0, |share| share.sockets);
        match payer {
            Payer::User(_) => user_sockets.check(theirs, "sockets of one user")?,
            Payer::Address(_) => address_sockets.check(theirs, "sockets from one address")?,
        }
        taken.by.entry(payer).or_default().sockets += 1;
        taken.all += 1;
        Ok(SocketPermit { limits: self.clone(), payer })
    }
}

impl SocketPermit {
    /// The user or address it counts for.
    pub fn payer(&self) -> Payer {
        self.payer
    }
}

impl Drop for SocketPermit {
    fn drop(&mut self) {
        let mut taken = self.limits.permits.taken.lock();
        taken.all -= 1;
        taken.change(self.payer, |share| share.sockets -= 1);
    }
}

impl RoomPermits {
    /// May the socket, which is in so many rooms, enter another?
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn check_room(&self, rooms: usize) -> Result<()> {
        let Permits { socket_rooms, user_rooms, address_rooms, taken, .. } = &self.limits.permits;
        socket_rooms.check(u32::try_from(rooms).unwrap_or(u32::MAX), "rooms of one socket")?;
        let theirs = taken.lock().by.get(&self.payer).map_or(0, |share| share.rooms);
        match self.payer {
            Payer::User(_) => user_rooms.check(theirs, "rooms of all sockets of one user"),
            Payer::Address(_) => address_rooms.check(theirs, "rooms of all sockets from one address"),
        }
    }

    /// The socket is now in so many rooms.
    pub fn set_count(&mut self, rooms: usize) {
        let (before, now) = (self.rooms, u32::try_from(rooms).unwrap_or(u32::MAX));
        if before != now {
            self.rooms = now;
            self.limits
                .permits
                .taken
                .lock()
                .change(self.payer, |share| share.rooms = share.rooms + now - before);
        }
    }
}

impl Drop for RoomPermits {
    fn drop(&mut self) {
        self.set_count(0);
    }
}

impl Taken {
    fn change(&mut self, payer: Payer, change: impl FnOnce(&mut Share)) {
        let share = self.by.entry(payer).or_default();
        change(share);
        if let Share { sockets: 0, rooms: 0 } = share {
            self.by.remove(&payer);
        }
    }
}

impl MaxCount {
    fn check(&self, there: u32, what: &str) -> Result<()> {
        match self.most {
            Some(most) if there >= most => {
                self.limited.inc();
                // Nobody knows when there will be fewer.
                Err(Error::limited(format!("at most {most} {what} at once"), SECOND))
            }
            _ => Ok(()),
        }
    }
}
