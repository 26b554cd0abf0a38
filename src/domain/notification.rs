//! What people are told of what others did: the kinds of it, the words, and who is concerned.

use serde::Serialize;

use super::{
    access::{Payer, Role},
    error::{Code, Error, Result},
    id::{LocationId, UserId},
    json,
    time::Timestamp,
};

/// Characters of a name in a notice; what is longer is cut.
const LONGEST: usize = 100;

/// What somebody did to a location.
#[derive(Clone, Debug, PartialEq)]
pub enum Deed {
    /// Made a user a member.
    Added(UserId, Role),
    /// Gave a member another role.
    Changed(UserId, Role),
    /// Ended a membership, others' or their own, which had begun then.
    Removed(UserId, Timestamp),
    /// Gave it another name; `None`: took its name away.
    Renamed(Option<String>),
    /// Removed it.
    Deleted,
    /// Made a share link, which ends then.
    Shared(Timestamp),
}

/// Something that happened, of which people may have to be told.
#[derive(Clone, Debug, PartialEq)]
pub struct News {
    /// Who did it.
    pub by: UserId,
    /// To which location.
    pub location: LocationId,
    /// Whose that is.
    pub owner: UserId,
    /// What it was called.
    pub name: Option<String>,
    /// What they did.
    pub deed: Deed,
    /// When.
    pub at: Timestamp,
    /// The caller whose budget for each person it draws on; `None`: it may be told to everybody it concerns.
    pub pair_payer: Option<Payer>,
    /// Who is not told, because what they were told before has been taken back instead.
    pub except: Option<UserId>,
}

/// What some people are told.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// What happened, for programs.
    pub kind: &'static str,
    /// Who did it.
    pub by: UserId,
    /// The location it happened to, which may be gone.
    pub location: LocationId,
    /// Who did what to which location, in English.
    pub message: String,
    /// The same as a JSON object, for those who say it in another language.
    pub fields: String,
    /// When it happened.
    pub at: Timestamp,
}

/// A notice, kept for each of those who are told.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// What they are told.
    pub notice: Notice,
    /// Who, and the id it has for them.
    pub to: Vec<(UserId, u64)>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Fields<'a> {
    user_id: UserId,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    location_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    member_id: Option<UserId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    member_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
}

impl News {
    /// Whose membership it is about.
    fn member(&self) -> Option<UserId> {
        match self.deed {
            Deed::Added(member, _) | Deed::Changed(member, _) | Deed::Removed(member, _) => Some(member),
            Deed::Renamed(_) | Deed::Deleted | Deed::Shared(_) => None,
        }
    }

    /// Does it concern all members?
    pub fn is_for_members(&self) -> bool {
        self.member().is_none()
    }

    /// Whether the budget for this person was drawn on before it was done, without which it would not have been.
    pub fn is_paid_for(&self, person: UserId) -> bool {
        matches!(self.deed, Deed::Added(member, _) | Deed::Changed(member, _) if member == person)
    }

    /// Whose names it takes to say it.
    pub fn people(&self) -> impl Iterator<Item = UserId> {
        [Some(self.by), self.member()].into_iter().flatten()
    }

    /// The notices and whom each is for, without those for nobody: a member's concerns them and the owner,
    /// anything else the owner and all members; nobody is told what they did themselves.
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
        let some = groups.into_iter().filter(|(_, to)| !to.is_empty());
        some.map(|(to_member, to)| (self.notice(to_member, &name), to)).collect()
    }

    fn notice<'a>(&self, to_member: bool, name: impl Fn(UserId) -> Option<&'a str>) -> Notice {
        let called = |user: UserId| name(user).map(fit).filter(|name| !name.is_empty());
        let say = |user: UserId| called(user).unwrap_or_else(|| format!("User {user}"));
        let (was, id) = (self.name.as_deref().map(fit), self.location);
        let place = was.as_ref().map_or_else(|| format!("location {id}"), |name| format!("“{name}”"));
        let by = say(self.by);
        let whom = |user| if to_member { "you".to_owned() } else { say(user) };
        let a = |role| if role == Role::Editor { "an editor" } else { "a viewer" };
        let new_name = match &self.deed {
            Deed::Renamed(name) => name.as_deref().map(fit),
            _ => None,
        };
        let message = match &self.deed {
            Deed::Added(user, role) => format!("{by} added {} to {place} as {}", whom(*user), a(*role)),
            Deed::Changed(user, role) => format!("{by} made {} {} of {place}", whom(*user), a(*role)),
            Deed::Removed(user, _) if *user == self.by => format!("{by} left {place}"),
            Deed::Removed(user, _) => format!("{by} removed {} from {place}", whom(*user)),
            Deed::Renamed(_) => match &new_name {
                Some(name) => format!("{by} renamed {place} to “{name}”"),
                None => format!("{by} took away the name of {place}, now location {id}"),
            },
            Deed::Deleted => format!("{by} deleted {place}"),
            Deed::Shared(_) => format!("{by} made a share link to {place}"),
        };
        let member = self.member();
        let member_name = member.and_then(&called);
        let (role, expires_at) = match self.deed {
            Deed::Added(_, role) | Deed::Changed(_, role) => (Some(role.as_str()), None),
            Deed::Shared(at) => (None, Some(at)),
            _ => (None, None),
        };
        let user_name = called(self.by);
        let fields = Fields {
            user_id: self.by,
            user_name: user_name.as_deref(),
            location_name: was.as_deref(),
            new_name: new_name.as_deref(),
            member_id: member,
            member_name: member_name.as_deref(),
            role,
            expires_at,
        };
        Notice {
            kind: self.deed.kind(),
            by: self.by,
            location: id,
            message,
            fields: serde_json::to_string(&fields).expect("fields are strings and numbers"),
            at: self.at,
        }
    }
}

impl Deed {
    /// The name on the wire.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Added(..) => "member_added",
            Self::Changed(..) => "role_changed",
            Self::Removed(..) => "member_removed",
            Self::Renamed(_) => "location_renamed",
            Self::Deleted => "location_deleted",
            Self::Shared(_) => "share_created",
        }
    }
}

/// A name in one line, and not too long.
fn fit(name: &str) -> String {
    let line = name.trim().chars().map(|c| if c.is_control() { ' ' } else { c });
    let cut = name.trim().chars().nth(LONGEST).is_some();
    let kept = if cut { LONGEST - 1 } else { LONGEST };
    line.take(kept).chain(cut.then_some('…')).collect()
}

/// Reads `{read: true}`, with which a notification is read; there is no way back.
///
/// # Errors
/// `invalid_json`, `duplicate_member`, `invalid_body`.
pub fn read_from_body(body: &[u8]) -> Result<()> {
    match json::object(body)?.get("read").and_then(serde_json::Value::as_bool) {
        Some(true) => Ok(()),
        _ => Err(Error::new(Code::InvalidBody, "read must be true").at("/read")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn user(id: u64) -> UserId {
        UserId::new(id).unwrap()
    }

    fn news(by: u64, name: Option<&str>, deed: Deed) -> News {
        News {
            by: user(by),
            location: LocationId::new(42).unwrap(),
            owner: user(1),
            name: name.map(str::to_owned),
            deed,
            at: Timestamp::from_millis(0),
            pair_payer: None,
            except: None,
        }
    }

    /// Kind, text and whom, as if 2 and 3 were members, 1 were called Ada and 2 Bob.
    fn told(news: &News) -> Vec<(&'static str, String, Vec<u64>)> {
        let name = |id: UserId| [None, Some("Ada"), Some(" Bob\n")].get(id.get() as usize).copied().flatten();
        let notices = news.notices(&[user(2), user(3)], name).into_iter();
        let ids = |to: Vec<UserId>| to.into_iter().map(UserId::get).collect();
        notices.map(|(notice, to)| (notice.kind, notice.message, ids(to))).collect()
    }

    #[test]
    fn a_change_of_a_member_concerns_them_and_the_owner_and_nobody_who_did_it() {
        let added = |by| told(&news(by, Some("bike"), Deed::Added(user(2), Role::Viewer)));
        let to_bob = |by: &str| ("member_added", format!("{by} added you to “bike” as a viewer"), vec![2]);
        assert_eq!(added(1), [to_bob("Ada")]);
        let to_ada = |by: &str| ("member_added", format!("{by} added Bob to “bike” as a viewer"), vec![1]);
        assert_eq!(added(9), [to_bob("User 9"), to_ada("User 9")]);
        assert_eq!(added(2), [to_ada("Bob")]);
        assert_eq!(
            told(&news(1, None, Deed::Changed(user(3), Role::Editor))),
            [("role_changed", "Ada made you an editor of location 42".to_owned(), vec![3])]
        );
        assert_eq!(
            told(&news(3, None, Deed::Removed(user(3), Timestamp::from_millis(0)))),
            [("member_removed", "User 3 left location 42".to_owned(), vec![1])]
        );
        assert_eq!(
            told(&news(1, None, Deed::Removed(user(3), Timestamp::from_millis(0)))),
            [("member_removed", "Ada removed you from location 42".to_owned(), vec![3])]
        );
    }

    #[test]
    fn anything_else_concerns_owner_and_members() {
        let (bike, car) = (Some("bike"), Some("car".to_owned()));
        for (news, kind, message, to) in [
            (news(1, bike, Deed::Deleted), "location_deleted", "Ada deleted “bike”", vec![2, 3]),
            (news(2, bike, Deed::Deleted), "location_deleted", "Bob deleted “bike”", vec![1, 3]),
            (
                news(9, bike, Deed::Renamed(car)),
                "location_renamed",
                "User 9 renamed “bike” to “car”",
                vec![1, 2, 3],
            ),
            (
                news(1, bike, Deed::Renamed(None)),
                "location_renamed",
                "Ada took away the name of “bike”, now location 42",
                vec![2, 3],
            ),
            (
                news(1, None, Deed::Shared(Timestamp::from_millis(5))),
                "share_created",
                "Ada made a share link to location 42",
                vec![2, 3],
            ),
        ] {
            assert_eq!(told(&news), [(kind, message.to_owned(), to)]);
        }
        let told_before = News { except: Some(user(2)), ..news(1, bike, Deed::Deleted) };
        assert_eq!(told(&told_before), [("location_deleted", "Ada deleted “bike”".to_owned(), vec![3])]);
        let alone = news(1, bike, Deed::Deleted);
        assert_eq!(alone.notices(&[], |_| None), []);
    }

    #[test]
    fn fields_say_the_same_and_long_names_are_cut() {
        let long = "é\u{7}".repeat(80);
        let news = news(2, Some(&long), Deed::Added(user(3), Role::Editor));
        let (notice, _) = news.notices(&[], |id| (id == user(2)).then_some("Bob")).remove(0);
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
