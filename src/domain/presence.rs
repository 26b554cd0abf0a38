//! Presence as values: the users who are connected or in a room, as both doors show them.
//!
//! The types are serialised as they are, because HTTP and Socket.IO send the same.

use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::{id::LocationId, id::UserId, time::Timestamp};

/// The users in one list; the others are only counted.
pub const MAX_ROWS: usize = 1_000;
/// The most characters of a name.
pub const MAX_NAME: usize = 255;

pub type Name = Arc<str>;

/// A user who is connected, or was a moment ago.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ActiveUser {
    pub user_id: UserId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_name: Option<Name>,
    /// The present time while the user is connected, later the time when the last socket closed.
    pub last_seen: Timestamp,
    pub sockets: usize,
}

/// The users who are connected, or were a moment ago.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ActiveUsers {
    /// The first [`MAX_ROWS`] users: those who are connected, then those who left last.
    pub users: Vec<ActiveUser>,
    pub total: usize,
}

impl ActiveUsers {
    /// Leaves out as many of the last users as it takes for the others to fit into so many bytes.
    pub fn fit(&mut self, bytes: usize) {
        let mut left = bytes;
        let fits = |row: &&ActiveUser| {
            // And a comma.
            let rest = serde_json::to_string(row).ok().and_then(|row| left.checked_sub(row.len() + 1));
            left = rest.unwrap_or(left);
            rest.is_some()
        };
        let fitting = self.users.iter().take_while(fits).count();
        self.users.truncate(fitting);
    }
}

/// A user in a room.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Person {
    pub user_id: UserId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_name: Option<Name>,
}

/// The users in a room.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Occupants {
    #[serde(rename = "roomName", serialize_with = "as_text")]
    pub room: LocationId,
    /// The first [`MAX_ROWS`] users by their ids.
    pub users: Vec<Person>,
    /// The number of sockets in the room, those of guests included.
    pub sockets: usize,
}

/// A change that a room is told of: a user has entered or left, or in large rooms only the number of sockets.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PresenceChange {
    #[serde(rename = "roomName", serialize_with = "as_text")]
    pub room: LocationId,
    #[serde(flatten)]
    pub who: Option<Person>,
    /// `None` without a user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<PresenceState>,
    /// The number of sockets now in the room, those of guests included.
    pub sockets: usize,
}

/// Whether a user has entered or left a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PresenceState {
    /// The user's first socket has entered.
    Join,
    /// The user's last socket has left.
    Leave,
}

fn as_text<S: Serializer>(room: &LocationId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(room)
}

/// Brings a name into a form that can be kept and shown.
pub fn presentable(name: &str) -> Option<String> {
    let printable: String = name.chars().filter(|c| !c.is_control()).collect();
    let name: String = printable.trim().chars().take(MAX_NAME).collect();
    Some(name).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_with_whoever_it_is_of_or_without_anybody() {
        let room = LocationId::new(7).unwrap();
        let person = Person { user_id: UserId::new(3).unwrap(), user_name: Some("Ada".into()) };
        let told =
            |who, state| serde_json::to_string(&PresenceChange { room, who, state, sockets: 2 }).unwrap();
        assert_eq!(
            told(Some(person), Some(PresenceState::Join)),
            r#"{"roomName":"7","userId":3,"userName":"Ada","state":"join","sockets":2}"#
        );
        assert_eq!(told(None, None), r#"{"roomName":"7","sockets":2}"#);
    }

    #[test]
    fn a_list_fits_into_so_many_bytes() {
        let row = |id| ActiveUser {
            user_id: UserId::new(id).unwrap(),
            user_name: Some("é".into()),
            last_seen: Timestamp::from_millis(0),
            sockets: 1,
        };
        let mut list = ActiveUsers { users: (0..10).map(row).collect(), total: 10 };
        let bytes = serde_json::to_string(&list.users).unwrap().len();
        list.fit(bytes);
        assert_eq!(list.users.len(), 10);
        list.fit(bytes - 2);
        assert_eq!((list.users.len(), list.total), (9, 10));
        list.fit(0);
        assert_eq!((list.users.len(), list.total), (0, 10));
    }
}
