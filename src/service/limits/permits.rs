//! Permits for what callers have at one time: sockets that are connected, and the rooms that these are in.

use std::{collections::HashMap, num::NonZeroU32, sync::Arc};

use parking_lot::Mutex;

use super::builder::{Builder, SECOND};
use crate::{
    config::Quotas,
    domain::{
        access::Payer,
        error::{Error, Result},
    },
    metrics::Counter,
};

/// The sockets and rooms of all callers, and how many there may be.
#[derive(Debug)]
pub struct Permits {
    sockets: Maximum,
    user_sockets: Maximum,
    address_sockets: Maximum,
    socket_rooms: Maximum,
    user_rooms: Maximum,
    address_rooms: Maximum,
    /// The places taken. Written when sockets come and go, and when they enter and leave rooms. A caller who has
    /// neither sockets nor rooms has no entry, so the number of sockets bounds it.
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    sockets: u32,
    by_caller: HashMap<Payer, Share>,
}

/// The sockets of one caller, and the rooms that all of these are in.
#[derive(Debug, Default)]
struct Share {
    sockets: u32,
    rooms: u32,
}

/// The most there may be of something at once.
#[derive(Debug)]
struct Maximum {
    /// `None`: any number.
    count: Option<u32>,
    refusals: Counter,
}

/// The place of a socket among those connected, which is free again once this is dropped.
#[derive(Debug)]
pub struct SocketPermit {
    permits: Arc<Permits>,
    payer: Payer,
}

/// The rooms that one socket is in, counted for its caller until this is dropped.
#[derive(Debug)]
pub struct RoomPermits {
    pub(super) permits: Arc<Permits>,
    pub(super) payer: Payer,
    pub(super) rooms: u32,
}

impl Permits {
    /// Creates the permits that the settings name; none is taken.
    pub fn new(build: &Builder<'_>) -> Self {
        let maximum = |name, count: fn(&Quotas) -> NonZeroU32| Maximum {
            count: build.quotas.map(|quotas| count(quotas).get()),
            refusals: build.metrics.limited(name),
        };
        Self {
            sockets: maximum("sockets", |quotas| quotas.sockets),
            user_sockets: maximum("user_sockets", |quotas| quotas.user_sockets),
            address_sockets: maximum("address_sockets", |quotas| quotas.address_sockets),
            socket_rooms: maximum("socket_rooms", |quotas| quotas.socket_rooms),
            user_rooms: maximum("user_rooms", |quotas| quotas.user_rooms),
            address_rooms: maximum("address_rooms", |quotas| quotas.address_rooms),
            taken: Mutex::default(),
        }
    }

    /// Admits a socket of a caller.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn admit_socket(this: &Arc<Self>, payer: Payer) -> Result<SocketPermit> {
        let mut taken = this.taken.lock();
        this.sockets.check(taken.sockets, "sockets")?;
        let count = taken.by_caller.get(&payer).map_or(0, |share| share.sockets);
        match payer {
            Payer::User(_) => this.user_sockets.check(count, "sockets of one user")?,
            Payer::Address(_) => this.address_sockets.check(count, "sockets from one address")?,
        }
        taken.by_caller.entry(payer).or_default().sockets += 1;
        taken.sockets += 1;
        Ok(SocketPermit { permits: this.clone(), payer })
    }
}

impl SocketPermit {
    /// The user or address that the socket counts for.
    pub fn payer(&self) -> Payer {
        self.payer
    }
}

impl Drop for SocketPermit {
    fn drop(&mut self) {
        let mut taken = self.permits.taken.lock();
        taken.sockets -= 1;
        taken.change(self.payer, |share| share.sockets -= 1);
    }
}

impl RoomPermits {
    /// Checks that the socket, which is in so many rooms, may enter another.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn check_room(&self, rooms: usize) -> Result<()> {
        let Permits { socket_rooms, user_rooms, address_rooms, taken, .. } = &*self.permits;
        socket_rooms.check(u32::try_from(rooms).unwrap_or(u32::MAX), "rooms of one socket")?;
        let count = taken.lock().by_caller.get(&self.payer).map_or(0, |share| share.rooms);
        match self.payer {
            Payer::User(_) => user_rooms.check(count, "rooms of all sockets of one user"),
            Payer::Address(_) => address_rooms.check(count, "rooms of all sockets from one address"),
        }
    }

    /// Records the number of rooms that the socket is in.
    pub fn set_count(&mut self, rooms: usize) {
        let (before, now) = (self.rooms, u32::try_from(rooms).unwrap_or(u32::MAX));
        if before != now {
            self.rooms = now;
            let mut taken = self.permits.taken.lock();
            taken.change(self.payer, |share| share.rooms = share.rooms + now - before);
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
        let share = self.by_caller.entry(payer).or_default();
        change(share);
        if let Share { sockets: 0, rooms: 0 } = share {
            self.by_caller.remove(&payer);
        }
    }
}

impl Maximum {
    fn check(&self, count: u32, what: &str) -> Result<()> {
        match self.count {
            Some(most) if count >= most => {
                self.refusals.inc();
                // Nobody knows when there will be fewer.
                Err(Error::limited(format!("at most {most} {what} at once"), SECOND))
            }
            _ => Ok(()),
        }
    }
}
