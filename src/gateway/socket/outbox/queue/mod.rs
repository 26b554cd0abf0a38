//! The events and acks that wait for one socket, in order, and the rules by which some give way when too many wait.
//!
//! `outbox/mod.rs` sends what waits, and holds its bytes against the caller's budget.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde_json::value::RawValue;

use super::queued::{Item, Kind, Queued, as_created};
use crate::domain::id::{LocationId, UserId};

#[cfg(test)]
mod tests;

/// Events and acks that may wait, without those of lists. One more ends the connection.
const MAX_QUEUED: usize = 256;
/// Bytes of their bodies if there are several. Bodies of rooms do not count, because all members share them.
const MAX_QUEUED_BYTES: usize = 1024 * 1024;
/// Chats that may wait. An older one gives way to a newer one, so that chats alone end no connection.
const MAX_CHATS: usize = 128;
const MAX_CHATS_OF_ONE: usize = 32;
/// Locations about which a list event may wait. Anybody can create so many within seconds, so one more ends no
/// connection: the oldest gives way.
const MAX_LISTED: usize = 1_024;
/// Bytes of the list events that wait. Beyond it an event names its location and does not show it.
const MAX_LIST_BYTES: usize = 256 * 1024;

#[derive(Default)]
pub struct Queue {
    /// Events and acks in the order in which they are to be sent, by numbers that only grow.
    waiting: BTreeMap<u64, Queued>,
    last_number: u64,
    /// The number of the list event that waits about each location.
    list_events: HashMap<LocationId, u64>,
    /// Bytes of the list events that wait, and of everything else that counts.
    list_bytes: usize,
    other_bytes: usize,
}

/// Too much waits, so the connection must be ended.
#[derive(Debug, PartialEq)]
pub struct TooMuchWaits;

impl Queue {
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Returns the bytes of the bodies that wait, without those of rooms.
    pub fn bytes(&self) -> usize {
        self.list_bytes + self.other_bytes
    }

    /// Adds an event or an ack at the end, and drops those that it makes unnecessary. Returns whether a list event has
    /// given way for want of room.
    ///
    /// # Errors
    /// [`TooMuchWaits`], and then it was not added. A list event is always added.
    pub fn push(&mut self, next: Queued) -> Result<bool, TooMuchWaits> {
        if matches!(&next.kind, Kind::RoomEvent(..) | Kind::UserList) {
            self.retain(|earlier| !next.kind.replaces(earlier));
        }
        match next.kind {
            Kind::ListEvent(item) => return Ok(self.push_list_event(item, next)),
            Kind::UserList => {
                self.insert(next);
                return Ok(false);
            }
            _ => {}
        }
        if let Some(sender) = next.kind.chat_sender() {
            self.make_room_for_chat(sender);
        }
        let others = self.waiting.len() - self.list_events.len();
        let is_too_large = self.other_bytes + next.counted_bytes() > MAX_QUEUED_BYTES && others > 0;
        if others >= MAX_QUEUED || is_too_large {
            return Err(TooMuchWaits);
        }
        self.insert(next);
        Ok(false)
    }

    /// Drops the newest, because the caller's budget has no room for it.
    pub fn drop_newest(&mut self) {
        if let Some(newest) = self.waiting.last_key_value().map(|(number, _)| *number) {
            self.remove(newest);
        }
    }

    pub fn pop(&mut self) -> Option<(u64, Queued)> {
        let number = *self.waiting.first_key_value()?.0;
        Some((number, self.remove(number)?))
    }

    /// Puts back what [`Queue::pop`] has returned.
    pub fn put_back(&mut self, number: u64, queued: Queued) {
        if let Some(id) = listed_location(&queued) {
            self.list_events.insert(id, number);
        }
        *self.byte_count_for(&queued) += queued.counted_bytes();
        self.waiting.insert(number, queued);
    }

    pub fn retain(&mut self, is_kept: impl Fn(&Kind) -> bool) {
        let dropped =
            self.waiting.iter().filter(|(_, queued)| !is_kept(&queued.kind)).map(|(number, _)| *number);
        for number in Vec::from_iter(dropped) {
            self.remove(number);
        }
    }

    pub fn clear(&mut self) {
        *self = Self { last_number: self.last_number, ..Self::default() };
    }

    /// Adds a list event in place of one that waits about the same location. Without room for its body the event only
    /// names its location; without room for another location the oldest event gives way, and `true` is returned.
    fn push_list_event(&mut self, item: Item, mut next: Queued) -> bool {
        let item = self.replace_list_event(item, &mut next.body);
        if self.list_bytes + next.body.get().len() > MAX_LIST_BYTES {
            next.body = item.named();
        }
        let is_full = self.list_events.len() >= MAX_LISTED;
        if let Some(oldest) = self.list_events.values().min().copied().filter(|_| is_full) {
            self.remove(oldest);
        }
        self.insert(Queued { kind: Kind::ListEvent(item), ..next });
        is_full
    }

    /// Drops the list event that waits about a location, because a newer one has come. Returns the item that the client
    /// must be told: a location that it has not been told of is new to it, whatever has become of it since. A removal
    /// is told in any case, because the client may have found the location by `GET /location`.
    fn replace_list_event(&mut self, item: Item, body: &mut Arc<RawValue>) -> Item {
        let number = self.list_events.get(&item.location()).copied();
        let earlier = number.and_then(|number| self.remove(number));
        match (earlier.map(|earlier| earlier.kind), item) {
            (Some(Kind::ListEvent(Item::Created(..))), Item::Updated(id, version)) => {
                *body = as_created(body);
                Item::Created(id, version)
            }
            _ => item,
        }
    }

    /// Drops the oldest chat of a sender of whom too many wait, or the oldest of all if too many wait.
    fn make_room_for_chat(&mut self, sender: Option<UserId>) {
        let chat = |(number, queued): (&u64, &Queued)| Some((*number, queued.kind.chat_sender()?));
        let all: Vec<_> = self.waiting.iter().filter_map(chat).collect();
        let mut of_sender = all.iter().filter(|(_, by)| *by == sender);
        let oldest = match of_sender.clone().count() >= MAX_CHATS_OF_ONE {
            true => of_sender.next(),
            false => all.first().filter(|_| all.len() >= MAX_CHATS),
        };
        if let Some((number, _)) = oldest {
            self.remove(*number);
        }
    }

    fn insert(&mut self, queued: Queued) {
        self.last_number += 1;
        self.put_back(self.last_number, queued);
    }

    fn remove(&mut self, number: u64) -> Option<Queued> {
        let queued = self.waiting.remove(&number)?;
        *self.byte_count_for(&queued) -= queued.counted_bytes();
        if let Some(id) = listed_location(&queued) {
            self.list_events.remove(&id);
        }
        if self.waiting.is_empty() {
            // A socket that keeps up costs no memory here.
            self.list_events = HashMap::new();
        }
        Some(queued)
    }

    fn byte_count_for(&mut self, queued: &Queued) -> &mut usize {
        if queued.kind.is_list_event() { &mut self.list_bytes } else { &mut self.other_bytes }
    }
}

fn listed_location(queued: &Queued) -> Option<LocationId> {
    match queued.kind {
        Kind::ListEvent(item) => Some(item.location()),
        _ => None,
    }
}
