//! The audience of a transaction besides the rooms: users whose lists change, and recipients of notices. The caller of
//! an act pays by how many people are told of it, and for each person.
//!
//! Most acts are moves, which concern only the room. For all others together the members are read once, before those
//! of removed locations are removed.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr};

use crate::{
    domain::{
        access::{Caller, Payer, RightsChange},
        error::Result,
        event::{Event, ListChange},
        id::{LocationId, UserId},
        location::Location,
        notification::{Activity, ActivityKind, AddressedNotice},
        time::Timestamp,
    },
    storage::{
        error::DbResult,
        pool::Store,
        sql::{number_list, with_values},
    },
};

/// Members read, and notifications written, in one transaction of several acts: as many as a single act may need.
pub const MAX_OF_SEVERAL_ACTS: usize = 10_001;

/// Members of some locations.
pub type Members = HashMap<LocationId, Vec<UserId>>;

/// The callers who pay for telling people of an act.
#[derive(Clone, Copy, Debug)]
pub struct Account {
    /// The caller who pays for how many are told; `None`: nobody pays.
    pub payer: Option<Payer>,
    /// The caller whose budget for each single person it draws on; `None`: there is no such limit.
    pub pair_payer: Option<Payer>,
}

impl Account {
    /// The account of a caller. An admin's token belongs to the app's own backend, which may tell each person as much
    /// as it likes.
    pub fn new(by: &Caller, payer: Option<Payer>) -> Self {
        Self { payer, pair_payer: payer.filter(|_| !by.is_admin()) }
    }

    /// Describes what a caller has done to a location of this name.
    pub fn activity(
        self,
        by: &Caller,
        location: &Location,
        name: Option<String>,
        kind: ActivityKind,
        at: Timestamp,
    ) -> Activity {
        let Location { id, owner, .. } = *location;
        let (by, pair_payer) = (by.user(), self.pair_payer);
        Activity { by, location: id, owner, name, kind, at, pair_payer, except: None }
    }
}

impl Store {
    /// Checks that a payer may have many people told of an act; `None`: nobody pays.
    ///
    /// # Errors
    /// `rate_limited`.
    pub(super) fn check_debt(&self, payer: Option<Payer>) -> Result<()> {
        self.fan_out.as_ref().zip(payer).map_or(Ok(()), |(budgets, payer)| budgets.check_debt(payer))
    }

    /// Draws on what a caller may tell one person; `None`: there is no such limit.
    ///
    /// # Errors
    /// `rate_limited`.
    pub(super) fn take_for_person(&self, pair_payer: Option<Payer>, person: UserId) -> Result<()> {
        let payer = self.fan_out.as_ref().zip(pair_payer);
        payer.map_or(Ok(()), |(budgets, payer)| budgets.take_for_person(payer, person))
    }

    /// Charges a payer for the people who are told by an event.
    pub(super) fn charge(&self, payer: Option<Payer>, event: &Event) {
        let people = match event {
            // One of them has mostly done it.
            Event::ListChanged { to, .. } => to.len().saturating_sub(1),
            Event::Notified(notice) => notice.recipients.len(),
            _ => return,
        };
        if let (Some(budgets), Some(payer)) = (&self.fan_out, payer) {
            budgets.charge(payer, people);
        }
    }
}

/// The things that people are told of a change of rights.
#[derive(Debug, Default)]
pub struct RightsEffect {
    /// `None`: nobody is notified.
    pub activity: Option<ActivityKind>,
    /// The user whose list changes, and how.
    pub list: Option<(UserId, ListChange)>,
    /// A user who is not told, because an earlier notice to them has been removed instead.
    pub except: Option<UserId>,
}

/// A change of rights, and its effect; `None`: it was so already.
pub type ChangedRights = (RightsChange, Option<RightsEffect>);

/// A change of lists.
#[derive(Debug)]
struct ListEffect {
    /// The number of the act that causes it.
    number: usize,
    account: Account,
    viewers: Viewers,
    change: ListChange,
}

/// The users whose lists change.
#[derive(Debug)]
enum Viewers {
    /// Everybody who sees the location: its owner, members and admins.
    All { location: LocationId, owner: UserId },
    /// A single user, who gains or loses sight of it.
    One(UserId),
}

/// Everything that the acts of a transaction cause besides new versions, by the numbers of the acts.
#[derive(Debug, Default)]
pub struct Effects {
    lists: Vec<ListEffect>,
    /// The acts that people may have to be notified of.
    pub activities: Vec<(usize, Activity)>,
}

impl Effects {
    /// Whether the acts were nothing but moves.
    pub fn is_empty(&self) -> bool {
        self.lists.is_empty() && self.activities.is_empty()
    }

    /// Records that an act changes the lists of everybody who sees the location.
    pub fn change_lists(&mut self, number: usize, account: Account, location: &Location, change: ListChange) {
        let viewers = Viewers::All { location: location.id, owner: location.owner };
        self.lists.push(ListEffect { number, account, viewers, change });
    }

    /// Records that an act changes the list of one user.
    pub fn change_list_of(&mut self, number: usize, account: Account, user: UserId, change: ListChange) {
        self.lists.push(ListEffect { number, account, viewers: Viewers::One(user), change });
    }

    /// Records an act that people may have to be notified of.
    pub fn record_activity(&mut self, number: usize, activity: Activity) {
        self.activities.push((number, activity));
    }

    /// The locations whose members have to be known.
    fn locations(&self) -> BTreeSet<LocationId> {
        let lists = self.lists.iter().filter_map(|effect| match effect.viewers {
            Viewers::All { location, .. } => Some(location),
            Viewers::One(_) => None,
        });
        let activities = self.activities.iter().map(|(_, activity)| activity);
        lists.chain(activities.filter(|of| of.is_for_members()).map(|of| of.location)).collect()
    }

    /// Reads the members who may have to be told, by one statement.
    ///
    /// # Errors
    /// As the database; that there are too many of several locations, which fewer locations are not refused for.
    pub async fn read_members(&self, tx: &DatabaseTransaction) -> DbResult<Members> {
        let (of, most) = (self.locations(), MAX_OF_SEVERAL_ACTS);
        let members = read_members(tx, &of, Some(most + 1)).await?;
        if of.len() > 1 && members.values().map(Vec::len).sum::<usize>() > most {
            return Err(too_many());
        }
        Ok(members)
    }

    /// All events in the order of the acts: changes of lists before the stored notices.
    pub fn into_events(
        self,
        members: &Members,
        notices: Vec<(usize, AddressedNotice)>,
    ) -> Vec<(usize, Event)> {
        let mut events = list_events(self.lists, members);
        events.extend(notices.into_iter().map(|(number, notice)| (number, Event::Notified(notice))));
        events.sort_by_key(|(number, _)| *number);
        events
    }
}

fn list_events(effects: Vec<ListEffect>, members: &Members) -> Vec<(usize, Event)> {
    // Changes of one location share the list of its viewers.
    let mut viewers_of: HashMap<LocationId, Arc<[UserId]>> = HashMap::new();
    let event = |ListEffect { number, account, viewers, change }| {
        let (to, and_admins) = match viewers {
            Viewers::One(user) => ([user].into(), false),
            Viewers::All { location, owner } => {
                let members = members.get(&location).into_iter().flatten().copied();
                let all = viewers_of.entry(location);
                (all.or_insert_with(|| [owner].into_iter().chain(members).collect()).clone(), true)
            }
        };
        let (payer, is_bounded) = (account.payer, account.pair_payer.is_some());
        (number, Event::ListChanged { change, to, and_admins, payer, is_bounded })
    };
    effects.into_iter().map(event).collect()
}

/// Drops from events that are sent late what their recipients may no longer see. In this process nobody can have lost
/// a right meanwhile, but other processes may have ended some.
///
/// # Errors
/// As the database.
pub async fn retain_entitled(tx: &DatabaseTransaction, events: &mut Vec<(usize, Event)>) -> DbResult<()> {
    let shown: BTreeSet<_> = events.iter().filter_map(|(_, event)| Some(shown_location(event)?.id)).collect();
    if shown.is_empty() {
        return Ok(());
    }
    let owners = read_owners(tx, &shown).await?;
    let members = read_members(tx, &shown, None).await?;
    drop_unentitled(events, &owners, &members);
    Ok(())
}

/// The location that an event shows to users in their lists.
fn shown_location(event: &Event) -> Option<&Location> {
    match event {
        Event::ListChanged {
            change: ListChange::Created(location) | ListChange::Updated(location), ..
        } => Some(location),
        _ => None,
    }
}

fn drop_unentitled(
    events: &mut Vec<(usize, Event)>,
    owners: &HashMap<LocationId, UserId>,
    members: &Members,
) {
    events.retain_mut(|(_, event)| {
        let Some(id) = shown_location(event).map(|location| location.id) else { return true };
        let Some(owner) = owners.get(&id) else { return false };
        let members: HashSet<_> = members.get(&id).into_iter().flatten().collect();
        if let Event::ListChanged { to, .. } = event {
            *to = to.iter().copied().filter(|user| user == owner || members.contains(user)).collect();
        }
        true
    });
}

/// Reads members of some locations, at most `most` if there is an end to them.
async fn read_members(
    tx: &DatabaseTransaction,
    of: &BTreeSet<LocationId>,
    most: Option<usize>,
) -> DbResult<Members> {
    let mut members = Members::new();
    if of.is_empty() {
        return Ok(members);
    }
    let (placeholders, values) = number_list(of.iter().copied());
    let limit = most.map(|most| format!("LIMIT {most}")).unwrap_or_default();
    let sql =
        format!("SELECT location_id, user_id FROM member WHERE location_id IN ({placeholders}) {limit}");
    for row in tx.query_all_raw(with_values(tx, &sql, values)).await? {
        let (id, member): (LocationId, UserId) = row.try_get_many_by_index()?;
        members.entry(id).or_default().push(member);
    }
    Ok(members)
}

/// Reads the owners of those of some locations that are there.
async fn read_owners(
    tx: &DatabaseTransaction,
    of: &BTreeSet<LocationId>,
) -> DbResult<HashMap<LocationId, UserId>> {
    let (placeholders, values) = number_list(of.iter().copied());
    let sql = format!("SELECT id, owner_id FROM location WHERE id IN ({placeholders})");
    let rows = tx.query_all_raw(with_values(tx, &sql, values)).await?;
    rows.iter().map(|row| row.try_get_many_by_index()).collect()
}

/// The error that makes the writer try fewer acts together. A single act is never refused for it.
pub fn too_many() -> DbErr {
    DbErr::Custom("too many people are to be told in one transaction".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{event::RemovalReason, location::NewLocation};

    fn user(id: u64) -> UserId {
        UserId::new(id).unwrap()
    }

    fn location(id: u64) -> Location {
        let body = br#"{"geometry":{"type":"Point","coordinates":[1,2]},"userId":1}"#;
        let new = NewLocation::from_body(body, None).unwrap();
        new.to_location(LocationId::new(id).unwrap(), Timestamp::from_millis(0))
    }

    fn account() -> Account {
        let payer = Payer::User(user(1));
        Account::new(&Caller::User { id: user(1), is_admin: false }, Some(payer))
    }

    /// Number, recipients and whether admins are among them, of changes of lists.
    fn lists(events: &[(usize, Event)]) -> Vec<(usize, Vec<u64>, bool)> {
        let list = |(number, event): &(usize, Event)| match event {
            Event::ListChanged { to, and_admins, .. } => {
                (*number, to.iter().map(|user| user.get()).collect(), *and_admins)
            }
            other => panic!("{other:?}"),
        };
        events.iter().map(list).collect()
    }

    #[test]
    fn everybody_who_sees_a_location_is_told_of_its_changes_and_one_user_of_their_own_rights() {
        let (bike, gone) = (location(42), RemovalReason::Withdrawn);
        let members = Members::from([(bike.id, vec![user(2), user(3)])]);
        let mut effects = Effects::default();
        effects.change_lists(0, account(), &bike, ListChange::Deleted(bike.id, RemovalReason::Deleted));
        effects.change_list_of(1, account(), user(9), ListChange::Deleted(bike.id, gone));
        let events = list_events(effects.lists, &members);
        assert_eq!(lists(&events), [(0, vec![1, 2, 3], true), (1, vec![9], false)]);
    }

    #[test]
    fn members_are_read_of_those_locations_whose_members_are_told() {
        let mut effects = Effects::default();
        assert!(effects.is_empty() && effects.locations().is_empty());
        let by = Caller::User { id: user(1), is_admin: false };
        let mut record = |id, kind| {
            let activity = account().activity(&by, &location(id), None, kind, Timestamp::from_millis(0));
            effects.record_activity(0, activity);
        };
        record(41, ActivityKind::RoleChanged(user(2), crate::domain::access::Role::Viewer));
        record(42, ActivityKind::LocationDeleted);
        effects.change_list_of(0, account(), user(2), ListChange::Updated(Arc::new(location(43).into())));
        effects.change_lists(0, account(), &location(44), ListChange::Updated(Arc::new(location(44).into())));
        assert!(!effects.is_empty());
        assert_eq!(effects.locations().into_iter().map(LocationId::get).collect::<Vec<_>>(), [42, 44]);
    }

    #[test]
    fn what_is_sent_late_is_shown_to_those_who_may_still_see_it() {
        let [kept, removed] = [42, 43].map(location);
        let members = Members::from([(kept.id, vec![user(2)]), (removed.id, vec![user(2)])]);
        let mut effects = Effects::default();
        for location in [&kept, &removed] {
            let change = ListChange::Updated(Arc::new(location.clone().into()));
            effects.change_lists(0, account(), location, change);
        }
        let change = ListChange::Deleted(removed.id, RemovalReason::Withdrawn);
        effects.change_list_of(1, account(), user(3), change);
        let before = Members::from([(kept.id, vec![user(2), user(3)])]);
        let mut events = list_events(effects.lists, &before);
        drop_unentitled(&mut events, &HashMap::from([(kept.id, user(1))]), &members);
        assert_eq!(lists(&events), [(0, vec![1, 2], true), (1, vec![3], false)]);
    }
}
