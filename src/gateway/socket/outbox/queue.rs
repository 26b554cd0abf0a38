//! The events and acks that wait for one socket, in order, and what gives way when too many wait.
//!
//! No sockets and no budgets here, so that it can be tested as a value: `mod.rs` sends what waits, and holds its
//! bytes against the budget of whoever has the socket.

use std::{
    collections::{BTreeMap, HashMap},
    io::Write as _,
    sync::Arc,
};

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use socketioxide::extract::AckSender;

use crate::{
    domain::id::{LocationId, UserId},
    gateway::wire::frames,
};

/// Events and acks that may wait, those of lists not counted; one more ends the connection.
const CAPACITY: usize = 256;
/// Bytes of their bodies, where there are several. Those of rooms do not count: each is small, and one for all members.
const CAPACITY_BYTES: usize = 1024 * 1024;
/// Chats that may wait: of all senders, and of one. Older ones give way, so that chats alone end no connection.
const CHATS: usize = 128;
const CHATS_OF_ONE: usize = 32;
/// Locations of which an event of a list may wait. Anybody can make that many within seconds, so one more ends no
/// connection: the oldest gives way.
const LISTED: usize = 1_024;
/// Bytes of the bodies of events of lists that wait. Beyond it they name their location and do not show it.
const LISTED_BYTES: usize = 256 * 1024;
/// The end of a packet, after its body.
pub const TAIL: &[u8] = b"]";
/// The event of a relayed message, of which only the newest few of each sender wait.
pub const CHAT: &str = "chat";

/// What one socket is still to be sent.
#[derive(Default)]
pub struct Queue {
    /// By a number that grows: in the order in which they are to be sent.
    waiting: BTreeMap<u64, Queued>,
    next_number: u64,
    /// The number of the event of a list that waits about a location; there is one at most.
    listed: HashMap<LocationId, u64>,
    /// Bytes of the bodies in `waiting` that count, of lists and of all else.
    listed_bytes: usize,
    other_bytes: usize,
    /// Events of lists that had to give way, since this was last asked.
    dropped: u64,
}

/// Too much waits: the connection is to be ended.
#[derive(Debug, PartialEq)]
pub struct TooMuch;

/// An event or an ack.
pub enum Queued {
    Event(Event),
    /// Nothing to be sent once the socket is out of the room. Of whom it is.
    InRoom(LocationId, Option<UserId>, Event),
    /// Nothing to be sent once whoever has the socket may not see that.
    OfList(Item, Event),
    Ack(Ack, Arc<RawValue>),
}

/// An event and its body, which many may share.
pub struct Event {
    pub name: &'static str,
    pub body: Arc<RawValue>,
}

/// Where an ack goes.
pub struct Ack {
    /// Its number in the packet.
    pub id: i64,
    /// The library's way.
    pub sender: AckSender,
}

/// What of a list an event tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Item {
    /// A location has come into the list, in this version.
    Created(LocationId, u64),
    /// It is in the list, and now has this version.
    Updated(LocationId, u64),
    /// It is no longer in the list. This tells nothing that anybody could lose the right to see.
    Deleted(LocationId),
    /// All who are connected; nobody needs an older list.
    Users,
}

/// What somebody may lose the right to see.
#[derive(Clone, Copy, PartialEq)]
pub enum Topic {
    Room(LocationId),
    Listed(LocationId),
    Users,
}

/// The body of `locations` that names a location without showing it: it is gone from a list, or too large.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    action: &'static str,
    location_id: LocationId,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
}

impl Item {
    /// The location it is about.
    fn location(self) -> Option<LocationId> {
        match self {
            Self::Created(id, _) | Self::Updated(id, _) | Self::Deleted(id) => Some(id),
            Self::Users => None,
        }
    }

    /// The `action` of an event about a location.
    pub fn action(self) -> &'static str {
        match self {
            Self::Created(..) => "create",
            Self::Updated(..) => "update",
            Self::Deleted(_) | Self::Users => "delete",
        }
    }

    /// The body of an event that names the location and does not show it. There is none for the list of all users.
    pub fn named(self) -> Option<Arc<RawValue>> {
        let version = match self {
            Self::Created(_, version) | Self::Updated(_, version) => Some(version),
            Self::Deleted(_) | Self::Users => None,
        };
        Some(body(&Named { action: self.action(), location_id: self.location()?, version }))
    }
}

impl Queued {
    /// Does it make what waits unnecessary? What is about locations in lists, see [`Queue::replace_listed`].
    fn replaces(&self, earlier: &Self) -> bool {
        match (self, earlier) {
            (Self::OfList(Item::Users, _), Self::OfList(Item::Users, _)) => true,
            // Whether somebody is there, or how many are: nobody needs to know what was before.
            (Self::InRoom(room, person, event), Self::InRoom(of, other, before)) => {
                event.name != CHAT && event.name == before.name && room == of && person == other
            }
            _ => false,
        }
    }

    /// The sender of a chat.
    fn is_chat_of(&self) -> Option<Option<UserId>> {
        match self {
            Self::InRoom(_, sender, event) if event.name == CHAT => Some(*sender),
            _ => None,
        }
    }

    /// Is it an event of a list? Those never end a connection.
    pub fn is_of_list(&self) -> bool {
        matches!(self, Self::OfList(..))
    }

    /// What it tells something of that the right to see may end.
    pub fn topic(&self) -> Option<Topic> {
        match self {
            Self::InRoom(id, ..) => Some(Topic::Room(*id)),
            Self::OfList(Item::Created(id, _) | Item::Updated(id, _), _) => Some(Topic::Listed(*id)),
            Self::OfList(Item::Users, _) => Some(Topic::Users),
            Self::OfList(Item::Deleted(_), _) | Self::Event(_) | Self::Ack(..) => None,
        }
    }

    pub fn body(&self) -> &Arc<RawValue> {
        match self {
            Self::Event(event) | Self::InRoom(_, _, event) | Self::OfList(_, event) => &event.body,
            Self::Ack(_, body) => body,
        }
    }

    /// What it adds to [`Queue::bytes`].
    fn bytes(&self) -> usize {
        match self {
            Self::InRoom(..) => 0,
            _ => self.body().get().len(),
        }
    }

    /// The beginning of its frame, up to the body.
    pub fn head(&self) -> Vec<u8> {
        let mut packet = Vec::with_capacity(48);
        let written = match self {
            Self::Event(Event { name, .. })
            | Self::InRoom(_, _, Event { name, .. })
            | Self::OfList(_, Event { name, .. }) => write!(packet, "42[\"{name}\","),
            Self::Ack(Ack { id, .. }, _) => write!(packet, "43{id}["),
        };
        written.expect("a Vec takes everything");
        let mut frame = frames::text_header(packet.len() + self.body().get().len() + TAIL.len());
        frame.append(&mut packet);
        frame
    }
}

impl Queue {
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Bytes of the bodies that wait, those of rooms not counted.
    pub fn bytes(&self) -> usize {
        self.listed_bytes + self.other_bytes
    }

    /// Adds what is to be sent last, and drops what it makes unnecessary.
    ///
    /// # Errors
    /// [`TooMuch`]: it was not added. Never for an event of a list.
    pub fn push(&mut self, next: Queued) -> Result<(), TooMuch> {
        if matches!(&next, Queued::InRoom(..) | Queued::OfList(Item::Users, _)) {
            self.retain(|earlier| !next.replaces(earlier));
        }
        match next {
            Queued::OfList(item, event) => self.push_listed(item, event),
            next => {
                self.drop_old_chats(&next);
                let others = self.waiting.len() - self.listed.len();
                let is_too_much = self.other_bytes + next.bytes() > CAPACITY_BYTES && others > 0;
                if others >= CAPACITY || is_too_much {
                    return Err(TooMuch);
                }
                self.insert(next);
            }
        }
        Ok(())
    }

    /// Drops what was added last: there is no room for it.
    pub fn drop_last(&mut self) {
        let last = self.waiting.last_key_value().map(|(number, _)| *number);
        if last.and_then(|number| self.remove(number)).is_some_and(|waiting| waiting.is_of_list()) {
            self.dropped += 1;
        }
    }

    /// Number of events of lists that had to give way, since this was last asked.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// Takes what is to be sent next, with its number.
    pub fn pop(&mut self) -> Option<(u64, Queued)> {
        let number = *self.waiting.first_key_value()?.0;
        Some((number, self.remove(number)?))
    }

    /// Puts back what [`Queue::pop`] has returned.
    pub fn put_back(&mut self, number: u64, waiting: Queued) {
        if let Queued::OfList(item, _) = &waiting
            && let Some(id) = item.location()
        {
            self.listed.insert(id, number);
        }
        *self.bytes_beside(&waiting) += waiting.bytes();
        self.waiting.insert(number, waiting);
    }

    /// Drops what is not to be kept.
    pub fn retain(&mut self, is_kept: impl Fn(&Queued) -> bool) {
        let dropped = self.waiting.iter().filter(|(_, waiting)| !is_kept(waiting)).map(|(number, _)| *number);
        for number in Vec::from_iter(dropped) {
            self.remove(number);
        }
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        *self = Self { next_number: self.next_number, dropped: self.dropped, ..Self::default() };
    }

    /// An event of a list takes the place of the one that waits about the same location; where there is no room, it
    /// gets smaller, and then the oldest gives way.
    fn push_listed(&mut self, item: Item, mut event: Event) {
        let item = self.replace_listed(item, &mut event);
        if self.listed_bytes + event.body.get().len() > LISTED_BYTES
            && let Some(named) = item.named()
        {
            event.body = named;
        }
        if self.listed.len() >= LISTED && item != Item::Users {
            let is_listed = |waiting: &Queued| waiting.is_of_list() && waiting.topic() != Some(Topic::Users);
            let oldest = self.waiting.iter().find(|(_, waiting)| is_listed(waiting));
            if let Some(oldest) = oldest.map(|(number, _)| *number) {
                self.remove(oldest);
                self.dropped += 1;
            }
        }
        self.insert(Queued::OfList(item, event));
    }

    /// Drops the event of a list that waits about a location, of which now something newer is to be told. Returns
    /// what that is: to a client that was not told of a location it is new, whatever has become of it since. That it
    /// is gone is told all the same, because a client may have found it by `GET /location`.
    fn replace_listed(&mut self, item: Item, event: &mut Event) -> Item {
        let waiting = item.location().and_then(|id| self.listed.get(&id).copied());
        let earlier = waiting.and_then(|number| self.remove(number));
        match (earlier, item) {
            (Some(Queued::OfList(Item::Created(..), _)), Item::Updated(id, version)) => {
                event.body = as_created(&event.body);
                Item::Created(id, version)
            }
            _ => item,
        }
    }

    /// Drops the oldest of chats, if the next is one and too many wait.
    fn drop_old_chats(&mut self, next: &Queued) {
        let Some(sender) = next.is_chat_of() else { return };
        let chats = |of: Option<Option<UserId>>| {
            let chats = self.waiting.iter().filter_map(|(at, waiting)| Some((*at, waiting.is_chat_of()?)));
            Vec::from_iter(chats.filter(|(_, by)| of.is_none_or(|of| of == *by)).map(|(at, _)| at))
        };
        let (theirs, all) = (chats(Some(sender)), chats(None));
        let oldest = match theirs.len() >= CHATS_OF_ONE {
            true => theirs.first(),
            false => all.first().filter(|_| all.len() >= CHATS),
        };
        if let Some(oldest) = oldest {
            self.remove(*oldest);
        }
    }

    fn insert(&mut self, waiting: Queued) {
        self.next_number += 1;
        self.put_back(self.next_number, waiting);
    }

    fn remove(&mut self, number: u64) -> Option<Queued> {
        let waiting = self.waiting.remove(&number)?;
        *self.bytes_beside(&waiting) -= waiting.bytes();
        if let Queued::OfList(item, _) = &waiting
            && let Some(id) = item.location()
        {
            self.listed.remove(&id);
        }
        if self.waiting.is_empty() {
            // A socket that keeps up keeps no memory for it.
            self.listed = HashMap::new();
        }
        Some(waiting)
    }

    /// The sum that the bytes of this belong to.
    fn bytes_beside(&mut self, waiting: &Queued) -> &mut usize {
        if waiting.is_of_list() { &mut self.listed_bytes } else { &mut self.other_bytes }
    }
}

/// The body of an `update` as that of a `create`.
fn as_created(update: &Arc<RawValue>) -> Arc<RawValue> {
    let text = update.get().replacen(r#""action":"update""#, r#""action":"create""#, 1);
    RawValue::from_string(text).map_or_else(|_| update.clone(), Arc::from)
}

/// A body as JSON text, which many may share.
pub fn body<T: Serialize + ?Sized>(value: &T) -> Arc<RawValue> {
    to_raw_value(value).expect("bodies are of strings, numbers and JSON text").into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn id(number: u64) -> LocationId {
        LocationId::new(number).unwrap()
    }

    fn listed(item: Item, padding: usize) -> Queued {
        let shown = json!({"action": item.action(), "location": "x".repeat(padding)});
        let event = match item {
            Item::Deleted(_) => item.named().unwrap(),
            _ => body(&shown),
        };
        Queued::OfList(item, Event { name: "locations", body: event })
    }

    fn other() -> Queued {
        Queued::Event(Event { name: "notification", body: body("x") })
    }

    /// What is sent, in its order.
    fn sent(queue: &mut Queue) -> Vec<String> {
        let sent = std::iter::from_fn(|| queue.pop().map(|(_, waiting)| waiting.body().get().to_owned()));
        let sent = sent.collect();
        assert_eq!((queue.bytes(), queue.listed.len()), (0, 0));
        sent
    }

    #[test]
    fn of_each_location_waits_one_event_of_a_list_which_says_what_the_client_does_not_know() {
        use Item::{Created, Deleted, Updated};
        let one = id(1);
        let (create, update) = (Created(one, 1), Updated(one, 2));
        let named = Deleted(one).named().unwrap().get().to_owned();
        let shows = |action: &str| format!(r#"{{"action":"{action}","location":"x"}}"#);
        for (told, wanted) in [
            (vec![create], shows("create")),
            (vec![create, update], shows("create")),
            (vec![create, update, update], shows("create")),
            (vec![update, update], shows("update")),
            (vec![update, Deleted(one)], named.clone()),
            (vec![create, Deleted(one)], named.clone()),
            (vec![Deleted(one), create], shows("create")),
            (vec![create, update, Deleted(one), create, update], shows("create")),
        ] {
            let mut queue = Queue::default();
            for item in &told {
                queue.push(listed(*item, 1)).unwrap();
            }
            assert_eq!(sent(&mut queue), [wanted], "{told:?}");
        }
    }

    #[test]
    fn events_of_lists_never_end_a_connection_and_take_nothing_from_others() {
        let mut queue = Queue::default();
        queue.push(other()).unwrap();
        for number in 1..=3 * LISTED as u64 {
            queue.push(listed(Item::Created(id(number), 1), 15_000)).unwrap();
        }
        assert_eq!((queue.listed.len(), queue.take_dropped()), (LISTED, 2 * LISTED as u64));
        // Beyond a bound they only name their location.
        assert!(queue.bytes() < LISTED_BYTES + LISTED * 100, "{}", queue.bytes());
        for _ in 1..CAPACITY {
            queue.push(other()).unwrap();
        }
        assert_eq!(queue.push(other()), Err(TooMuch));
        queue.push(listed(Item::Deleted(id(3 * LISTED as u64)), 0)).unwrap();
        let sent = sent(&mut queue);
        assert_eq!(sent.len(), LISTED + CAPACITY);
        assert_eq!(
            (&*sent[0], sent[1].contains("2049"), sent.last().unwrap().contains("delete")),
            ("\"x\"", true, true)
        );
    }

    #[test]
    fn what_may_no_longer_be_seen_goes_and_what_says_so_stays() {
        let mut queue = Queue::default();
        for item in [Item::Created(id(1), 1), Item::Deleted(id(2)), Item::Updated(id(3), 4), Item::Users] {
            queue.push(listed(item, 1)).unwrap();
        }
        queue.push(other()).unwrap();
        queue.retain(|waiting| waiting.topic().is_none());
        assert_eq!(sent(&mut queue), [r#"{"action":"delete","locationId":2}"#, "\"x\""]);
    }

    #[test]
    fn an_event_of_a_list_without_room_goes_alone() {
        let mut queue = Queue::default();
        queue.push(other()).unwrap();
        queue.push(listed(Item::Updated(id(1), 1), 1)).unwrap();
        queue.drop_last();
        assert_eq!((sent(&mut queue).len(), queue.take_dropped()), (1, 1));
    }
}
