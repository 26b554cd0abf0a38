//! Who is here, as values: what the doors show of it, and what travels when it changes.

use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::{id::LocationId, id::UserId, time::Timestamp};

/// Users of one list: the rest are only counted.
pub const MAX_ROWS: usize = 1_000;
/// Characters of a name.
pub const MAX_NAME: usize = 255;

/// What a user is called.
pub type Name = Arc<str>;

/// Somebody who is connected, or was a moment ago.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ActiveUser {
    /// Who.
    pub user_id: UserId,
    /// What they are called, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_name: Option<Name>,
    /// Now, while they are connected.
    pub last_seen: Timestamp,
    /// How many they have.
    pub sockets: usize,
}

/// Everybody who is.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ActiveUsers {
    /// At most [`MAX_ROWS`]: those who are connected first, then who was last.
    pub users: Vec<ActiveUser>,
    /// How many there are.
    pub total: usize,
}

impl ActiveUsers {
    /// Leaves out the last rows, as far as it takes for the others to come to so many bytes.
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

/// Somebody in a room.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Person {
    /// Who.
    pub user_id: UserId,
    /// What they are called, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_name: Option<Name>,
}

/// Everybody in a room.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Occupants {
    /// The location.
    #[serde(rename = "roomName", serialize_with = "as_text")]
    pub room: LocationId,
    /// At most [`MAX_ROWS`], by id.
    pub users: Vec<Person>,
    /// How many there are, guests of share links included.
    pub sockets: usize,
}

/// Something to be told in a room: who has come or gone, or in large rooms only how many there are.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PresenceChange {
    /// The location.
    #[serde(rename = "roomName", serialize_with = "as_text")]
    pub room: LocationId,
    /// Who has come or gone.
    #[serde(flatten)]
    pub who: Option<Movement>,
    /// How many there are now, guests of share links included.
    pub sockets: usize,
}

/// Somebody has come or gone.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Movement {
    /// Who.
    #[serde(flatten)]
    pub person: Person,
    /// Which of the two.
    pub state: PresenceState,
}

/// Come or gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PresenceState {
    /// With their first socket.
    Join,
    /// With their last.
    Leave,
}

fn as_text<S: Serializer>(room: &LocationId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(room)
}

/// A name as it can be kept and shown.
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
        let moved = Movement { person, state: PresenceState::Join };
        let told = |who| serde_json::to_string(&PresenceChange { room, who, sockets: 2 }).unwrap();
        assert_eq!(
            told(Some(moved)),
            r#"{"roomName":"7","userId":3,"userName":"Ada","state":"join","sockets":2}"#
        );
        assert_eq!(told(None), r#"{"roomName":"7","sockets":2}"#);
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
