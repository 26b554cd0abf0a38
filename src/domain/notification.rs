//! Notices: what users are told of what others did, in English and as fields, and who is told.
//!
//! An activity makes at most two notices: one for the member it is about, and one for the owner and the others. How
//! notices are stored, and which of their recipients have read them, is in storage.

use serde_json::{Value, json};

use super::{
    access::{Payer, Role},
    error::{Code, Error, Result},
    id::{LocationId, UserId},
    json,
    time::Timestamp,
};

/// Characters of a name in a notice; a longer name is cut.
const MAX_NAME_CHARS: usize = 100;

/// The kind of a change of a location that others may be told of.
#[derive(Clone, Debug, PartialEq)]
pub enum ActivityKind {
    MemberAdded(UserId, Role),
    RoleChanged(UserId, Role),
    /// A membership that began at this time was ended, by somebody else or by the member.
    MemberRemoved(UserId, Timestamp),
    /// The location was given another name; `None`: its name was removed.
    LocationRenamed(Option<String>),
    LocationDeleted,
    /// The time is that at which the link expires.
    ShareCreated(Timestamp),
}

/// A change of a location that others may be told of, with everything that its notices say.
#[derive(Clone, Debug, PartialEq)]
pub struct Activity {
    pub by: UserId,
    pub location: LocationId,
    pub owner: UserId,
    /// The name of the location before.
    pub name: Option<String>,
    pub kind: ActivityKind,
    pub at: Timestamp,
    /// The caller whose budget for each recipient the notices draw on; `None`: there is no such limit.
    pub pair_payer: Option<Payer>,
    /// A user who is not told, because an earlier notice to them has been removed instead.
    pub except: Option<UserId>,
}

/// The text of an activity for some of those whom it concerns.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// The kind of the change, for programs: see [`ActivityKind::as_str`].
    pub kind: &'static str,
    pub by: UserId,
    /// The location it happened to, which may be gone.
    pub location: LocationId,
    /// A sentence in English that says who did what to which location.
    pub message: String,
    /// The same as a JSON object, for clients that show it in another language.
    pub fields: String,
    pub at: Timestamp,
}

/// A stored notice and its recipients.
#[derive(Clone, Debug, PartialEq)]
pub struct AddressedNotice {
    pub notice: Notice,
    /// Each recipient, and the id of their notification.
    pub recipients: Vec<(UserId, u64)>,
}

impl Activity {
    fn member(&self) -> Option<UserId> {
        use ActivityKind::{MemberAdded, MemberRemoved, RoleChanged};
        match self.kind {
            MemberAdded(member, _) | RoleChanged(member, _) | MemberRemoved(member, _) => Some(member),
            _ => None,
        }
    }

    pub fn is_for_members(&self) -> bool {
        self.member().is_none()
    }

    /// Whether the payer's budget for this recipient was drawn on before it was done, as a condition of doing it.
    pub fn is_prepaid_for(&self, recipient: UserId) -> bool {
        use ActivityKind::{MemberAdded, RoleChanged};
        matches!(self.kind, MemberAdded(member, _) | RoleChanged(member, _) if member == recipient)
    }

    pub fn named_users(&self) -> impl Iterator<Item = UserId> {
        [Some(self.by), self.member()].into_iter().flatten()
    }

    /// Writes its notices, each with its recipients; one without recipients is left out. A change of a membership
    /// concerns the member and the owner, anything else the owner and all members. Nobody is told what they did
    /// themselves.
    pub fn notices<'a>(
        &self,
        members: &[UserId],
        name: impl Fn(UserId) -> Option<&'a str>,
    ) -> Vec<(Notice, Vec<UserId>)> {
        let is_told = |user: &UserId| *user != self.by && Some(*user) != self.except;
        let others = |users: &[UserId]| Vec::from_iter(users.iter().copied().filter(is_told));
        let groups = match self.member() {
            Some(member) => vec![(true, others(&[member])), (false, others(&[self.owner]))],
            None => vec![(false, others(&[&[self.owner], members].concat()))],
        };
        let groups = groups.into_iter().filter(|(_, recipients)| !recipients.is_empty());
        groups.map(|(to_member, recipients)| (self.notice(to_member, &name), recipients)).collect()
    }

    /// Writes the notice; `to_member`: to the member it is about.
    fn notice<'a>(&self, to_member: bool, name: impl Fn(UserId) -> Option<&'a str>) -> Notice {
        use ActivityKind::{
            LocationDeleted, LocationRenamed, MemberAdded, MemberRemoved, RoleChanged, ShareCreated,
        };
        let short_name = |user: UserId| name(user).map(to_short_line).filter(|name| !name.is_empty());
        let named = |id: UserId, name: &Option<String>| name.clone().unwrap_or_else(|| format!("User {id}"));
        let (user_name, member_name) = (short_name(self.by), self.member().and_then(short_name));
        let (id, location_name) = (self.location, self.name.as_deref().map(to_short_line));
        let place =
            location_name.as_ref().map_or_else(|| format!("location {id}"), |name| format!("“{name}”"));
        let by = named(self.by, &user_name);
        let member = |id| if to_member { "you".to_owned() } else { named(id, &member_name) };
        let a = |role| if role == Role::Editor { "an editor" } else { "a viewer" };
        let (mut new_name, mut new_role, mut expires_at) = (None, None, None);
        let message = match &self.kind {
            MemberAdded(user, role) => {
                new_role = Some(role.as_str());
                format!("{by} added {} to {place} as {}", member(*user), a(*role))
            }
            RoleChanged(user, role) => {
                new_role = Some(role.as_str());
                format!("{by} made {} {} of {place}", member(*user), a(*role))
            }
            MemberRemoved(user, _) if *user == self.by => format!("{by} left {place}"),
            MemberRemoved(user, _) => format!("{by} removed {} from {place}", member(*user)),
            LocationRenamed(name) => {
                new_name = name.as_deref().map(to_short_line);
                match &new_name {
                    Some(name) => format!("{by} renamed {place} to “{name}”"),
                    None => format!("{by} took away the name of {place}, now location {id}"),
                }
            }
            LocationDeleted => format!("{by} deleted {place}"),
            ShareCreated(at) => {
                expires_at = Some(at);
                format!("{by} made a share link to {place}")
            }
        };
        let mut fields = json!({
            "userId": self.by, "userName": user_name, "locationName": location_name, "newName": new_name,
            "memberId": self.member(), "memberName": member_name, "role": new_role, "expiresAt": expires_at,
        });
        fields.as_object_mut().into_iter().for_each(|fields| fields.retain(|_, field| !field.is_null()));
        let (kind, fields) = (self.kind.as_str(), fields.to_string());
        Notice { kind, by: self.by, location: id, message, fields, at: self.at }
    }
}

impl ActivityKind {
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::MemberAdded(..) => "member_added",
            Self::RoleChanged(..) => "role_changed",
            Self::MemberRemoved(..) => "member_removed",
            Self::LocationRenamed(_) => "location_renamed",
            Self::LocationDeleted => "location_deleted",
            Self::ShareCreated(_) => "share_created",
        }
    }
}

/// Writes a name in one line, and cuts one that is too long.
fn to_short_line(name: &str) -> String {
    let line = name.trim().chars().map(|c| if c.is_control() { ' ' } else { c });
    let is_cut = name.trim().chars().nth(MAX_NAME_CHARS).is_some();
    let kept = if is_cut { MAX_NAME_CHARS - 1 } else { MAX_NAME_CHARS };
    line.take(kept).chain(is_cut.then_some('…')).collect()
}

/// Checks that a body is `{read: true}`, which marks a notification as read. Nothing marks it as unread again.
///
/// # Errors
/// `invalid_json`, `duplicate_member`, `invalid_body`.
pub fn read_from_body(body: &[u8]) -> Result<()> {
    match json::object(body)?.get("read").and_then(Value::as_bool) {
        Some(true) => Ok(()),
        _ => Err(Error::new(Code::InvalidBody, "read must be true").at("/read")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: u64) -> UserId {
        UserId::new(id).unwrap()
    }

    fn activity(by: u64, name: Option<&str>, kind: ActivityKind) -> Activity {
        Activity {
            by: user(by),
            location: LocationId::new(42).unwrap(),
            owner: user(1),
            name: name.map(str::to_owned),
            kind,
            at: Timestamp::from_millis(0),
            pair_payer: None,
            except: None,
        }
    }

    /// Kinds, messages and recipients, where users 2 and 3 are members, 1 is called Ada and 2 Bob.
    fn notices(activity: &Activity) -> Vec<(&'static str, String, Vec<u64>)> {
        let name = |id: UserId| [None, Some("Ada"), Some(" Bob\n")].get(id.get() as usize).copied().flatten();
        let notices = activity.notices(&[user(2), user(3)], name).into_iter();
        let ids = |to: Vec<UserId>| to.into_iter().map(UserId::get).collect();
        notices.map(|(notice, to)| (notice.kind, notice.message, ids(to))).collect()
    }

    #[test]
    fn a_change_of_a_member_concerns_them_and_the_owner_and_nobody_who_did_it() {
        let added =
            |by| notices(&activity(by, Some("bike"), ActivityKind::MemberAdded(user(2), Role::Viewer)));
        let to_bob = |by: &str| ("member_added", format!("{by} added you to “bike” as a viewer"), vec![2]);
        assert_eq!(added(1), [to_bob("Ada")]);
        let to_ada = |by: &str| ("member_added", format!("{by} added Bob to “bike” as a viewer"), vec![1]);
        assert_eq!(added(9), [to_bob("User 9"), to_ada("User 9")]);
        assert_eq!(added(2), [to_ada("Bob")]);
        assert_eq!(
            notices(&activity(1, None, ActivityKind::RoleChanged(user(3), Role::Editor))),
            [("role_changed", "Ada made you an editor of location 42".to_owned(), vec![3])]
        );
        assert_eq!(
            notices(&activity(3, None, ActivityKind::MemberRemoved(user(3), Timestamp::from_millis(0)))),
            [("member_removed", "User 3 left location 42".to_owned(), vec![1])]
        );
        assert_eq!(
            notices(&activity(1, None, ActivityKind::MemberRemoved(user(3), Timestamp::from_millis(0)))),
            [("member_removed", "Ada removed you from location 42".to_owned(), vec![3])]
        );
    }

    #[test]
    fn anything_else_concerns_owner_and_members() {
        let (bike, car) = (Some("bike"), Some("car".to_owned()));
        for (activity, kind, message, to) in [
            (
                activity(1, bike, ActivityKind::LocationDeleted),
                "location_deleted",
                "Ada deleted “bike”",
                vec![2, 3],
            ),
            (
                activity(2, bike, ActivityKind::LocationDeleted),
                "location_deleted",
                "Bob deleted “bike”",
                vec![1, 3],
            ),
            (
                activity(9, bike, ActivityKind::LocationRenamed(car)),
                "location_renamed",
                "User 9 renamed “bike” to “car”",
                vec![1, 2, 3],
            ),
            (
                activity(1, bike, ActivityKind::LocationRenamed(None)),
                "location_renamed",
                "Ada took away the name of “bike”, now location 42",
                vec![2, 3],
            ),
            (
                activity(1, None, ActivityKind::ShareCreated(Timestamp::from_millis(5))),
                "share_created",
                "Ada made a share link to location 42",
                vec![2, 3],
            ),
        ] {
            assert_eq!(notices(&activity), [(kind, message.to_owned(), to)]);
        }
        let with_exception =
            Activity { except: Some(user(2)), ..activity(1, bike, ActivityKind::LocationDeleted) };
        assert_eq!(
            notices(&with_exception),
            [("location_deleted", "Ada deleted “bike”".to_owned(), vec![3])]
        );
        let alone = activity(1, bike, ActivityKind::LocationDeleted);
        assert_eq!(alone.notices(&[], |_| None), []);
    }

    #[test]
    fn fields_say_the_same_and_long_names_are_cut() {
        let long = "é\u{7}".repeat(80);
        let activity = activity(2, Some(&long), ActivityKind::MemberAdded(user(3), Role::Editor));
        let (notice, _) = activity.notices(&[], |id| (id == user(2)).then_some("Bob")).remove(0);
        let cut = format!("{}é…", "é ".repeat(49));
        let fields: Value = serde_json::from_str(&notice.fields).unwrap();
        assert_eq!(
            fields,
            json!({"userId": 2, "userName": "Bob", "locationName": cut, "memberId": 3, "role": "editor"})
        );
        assert_eq!(notice.message, format!("Bob added you to “{cut}” as an editor"));
    }

    #[test]
    fn reading_cannot_be_undone() {
        assert!(read_from_body(br#"{"read":true}"#).is_ok());
        for body in ["{}", r#"{"read":false}"#, r#"{"read":1}"#, r#"{"read":"true"}"#, r#"{"read":null}"#] {
            let error = read_from_body(body.as_bytes()).unwrap_err();
            assert_eq!((error.code, error.pointer.as_deref()), (Code::InvalidBody, Some("/read")), "{body}");
        }
    }
}
