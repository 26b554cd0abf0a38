//! The people connected to this node: which sockets are whose, and which are admins'.
//!
//! Not in rooms: what goes to a person goes to all of their sockets, wherever those are. Guests of share links
//! are nobody here. In open mode everybody may do everything, so every socket is an admin's, and somebody's from
//! when it has said whose.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap, HashSet},
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use socketioxide::{extract::SocketRef, socket::Sid};
use tokio::sync::Notify;

use crate::{
    domain::{
        access::Caller,
        id::UserId,
        presence::{ActiveUser, ActiveUsers, MAX_ROWS, Name},
        time::Timestamp,
    },
    gateway::socket::{
        outbox::{Item, Outbox, body},
        session::Session,
    },
    service::access::Identity,
};

/// How long somebody who has gone is still on the list,
const SEEN: Duration = Duration::from_secs(60);
/// and how many of those.
const MAX_SEEN: usize = 10_000;
/// Bytes of one list: over half of what a socket may have unread would hold up all else that it is sent.
const LIST: usize = 32 * 1024;
/// Bytes of lists that go to admins in one round; the next goes to those whose list is oldest.
const ROUND: usize = 4 * 1024 * 1024;
/// Users whose name is to be looked up. Over that they have none until a token says so, or they connect again.
const MAX_UNNAMED: usize = 10_000;

/// Everybody who is connected here.
#[derive(Default)]
pub struct People {
    /// Written when a socket connects, says who it is, changes its rights, disconnects. Taken before a session's,
    /// with no room's, and never held while anything is sent.
    state: Mutex<State>,
    /// Told when there is something to tell.
    pub woken: Notify,
    /// Told when a name is to be looked up.
    pub nameless: Notify,
}

#[derive(Default)]
struct State {
    users: HashMap<UserId, User>,
    admins: HashMap<Sid, Admin>,
    /// Who has gone, and when, each once.
    gone: BTreeSet<(Instant, UserId)>,
    /// Whose row is another since it was last told.
    changed: HashSet<UserId>,
    /// Whose name nothing here says.
    unnamed: HashSet<UserId>,
    /// How often the list has changed.
    list: u64,
}

struct User {
    name: Option<Name>,
    /// None: gone, a moment ago.
    ways: Vec<Way>,
    /// When the last one went.
    last_seen: (Instant, Timestamp),
}

struct Admin {
    way: Way,
    /// The list they were sent last.
    list: u64,
}

/// The way to one socket.
#[derive(Clone)]
pub struct Way {
    /// Whose it is; `None`: in open mode, and nobody has said so.
    pub user: Option<UserId>,
    pub socket: SocketRef,
    pub outbox: Arc<Outbox>,
}

impl Way {
    fn is_to(&self, socket: &SocketRef) -> bool {
        std::ptr::eq(&raw const *self.socket, &raw const **socket)
    }
}

impl People {
    /// Takes a socket in, or takes over that it now is somebody's or has other rights; nothing once it has
    /// disconnected. `said`: what tokens have last said a user is called.
    pub fn place(
        &self,
        session: &Session,
        outbox: &Arc<Outbox>,
        socket: &SocketRef,
        said: impl FnOnce(UserId) -> Option<String>,
    ) {
        let state = &mut *self.state.lock();
        // With the lock: who disconnects says so first, and is taken out after it.
        if session.is_over() {
            return;
        }
        let identity = session.identity();
        let (user, is_admin) = match identity.as_ref().map(|identity| &identity.caller) {
            None => (None, true),
            Some(Caller::Anyone(user)) => (Some(*user), true),
            Some(Caller::User { id, is_admin }) => (Some(*id), *is_admin),
            Some(Caller::Guest(_)) => return,
        };
        let way = Way { user, socket: socket.clone(), outbox: outbox.clone() };
        if is_admin {
            let admin = state.admins.entry(socket.id).or_insert_with(|| Admin { way: way.clone(), list: 0 });
            admin.way.user = user;
        } else {
            state.admins.remove(&socket.id);
        }
        if let (Some(user), Some(Identity { name, .. })) = (user, identity) {
            state.enter(user, way);
            // Asked now: another token may have said so since, and finds nobody to name before.
            state.call(user, said(user).or(name));
            if matches!(session.caller(), Caller::User { .. }) && state.is_unnamed(user) {
                self.nameless.notify_one();
            }
        }
        self.woken.notify_one();
    }

    /// Takes out a socket that has disconnected or whose token has ended.
    pub fn remove(&self, user: UserId, socket: &SocketRef) {
        let state = &mut *self.state.lock();
        state.admins.remove(&socket.id);
        let Some(known) = state.users.get_mut(&user) else { return };
        let before = known.ways.len();
        known.ways.retain(|way| !way.is_to(socket));
        if known.ways.len() == before {
            return;
        }
        if known.ways.is_empty() {
            known.ways = Vec::new();
            state.part(user, Instant::now());
        }
        state.changed.insert(user);
        self.woken.notify_one();
    }

    /// A token has said anew what a user is called; `said`: what tokens have last said.
    pub fn call(&self, user: UserId, said: impl FnOnce(UserId) -> Option<String>) {
        let state = &mut *self.state.lock();
        if state.users.contains_key(&user) && state.call(user, said(user)) {
            self.woken.notify_one();
        }
    }

    /// What these users are called, as far as is known here.
    pub fn names(&self, users: &[UserId]) -> Vec<Option<Name>> {
        let state = self.state.lock();
        users.iter().map(|user| state.users.get(user)?.name.clone()).collect()
    }

    /// Everybody who is here, or was a moment ago.
    pub fn active(&self) -> ActiveUsers {
        let (state, now) = (self.state.lock(), Timestamp::now());
        let mut rows: Vec<_> = state.users.iter().collect();
        let total = rows.len();
        let key = |(id, user): &(&UserId, &User)| {
            (user.ways.is_empty().then_some(Reverse(user.last_seen.1)), id.get())
        };
        if total > MAX_ROWS {
            rows.select_nth_unstable_by_key(MAX_ROWS, key);
            rows.truncate(MAX_ROWS);
        }
        rows.sort_unstable_by_key(key);
        ActiveUsers { users: rows.into_iter().map(|(id, user)| user.row(*id, now)).collect(), total }
    }

    /// Rows that are others than when this was last asked.
    pub fn changed(&self) -> Vec<ActiveUser> {
        let (state, now) = (&mut *self.state.lock(), Timestamp::now());
        let changed = std::mem::take(&mut state.changed);
        changed.into_iter().filter_map(|id| Some(state.users.get(&id)?.row(id, now))).collect()
    }

    /// Rows have changed: the next list is another.
    pub fn relist(&self) {
        self.state.lock().list += 1;
        self.woken.notify_one();
    }

    /// Sends admins the list, if they were sent another; those who do not keep up get it later. `true`: some were.
    pub fn tell(&self) -> bool {
        let (list, mut owed) = {
            let state = self.state.lock();
            let owed = state.admins.iter().filter(|(_, admin)| admin.list < state.list);
            (state.list, owed.map(|(id, admin)| (admin.list, *id, admin.way.clone())).collect::<Vec<_>>())
        };
        owed.retain(|(.., way)| way.outbox.has_room());
        if owed.is_empty() {
            return false;
        }
        let mut active = self.active();
        active.fit(LIST);
        let body = body(&active);
        owed.sort_unstable_by_key(|(last, ..)| *last);
        owed.truncate((ROUND / body.get().len()).max(1));
        for (_, id, way) in owed {
            match self.state.lock().admins.get_mut(&id) {
                Some(admin) => admin.list = list,
                // No admin any more.
                None => continue,
            }
            way.outbox.send_list_event(&way.socket, Item::Users, "user_list", body.clone());
        }
        true
    }

    /// Forgets who was last seen long ago. `true`: some are still to be forgotten, or told.
    pub fn forget(&self, now: Instant) -> bool {
        let state = &mut *self.state.lock();
        while let Some((at, user)) = state.gone.first().copied()
            && (now >= at + SEEN || state.gone.len() > MAX_SEEN)
        {
            state.gone.pop_first();
            state.users.remove(&user);
            state.list += 1;
        }
        !state.gone.is_empty() || state.admins.values().any(|admin| admin.list < state.list)
    }

    /// Whose names are to be looked up.
    pub fn unnamed(&self) -> Vec<UserId> {
        std::mem::take(&mut self.state.lock().unnamed).into_iter().collect()
    }

    /// Could not be looked up now.
    pub fn put_back(&self, users: &[UserId]) {
        let state = &mut *self.state.lock();
        if users.iter().filter(|user| state.is_unnamed(**user)).count() > 0 {
            self.nameless.notify_one();
        }
    }

    /// What was found, unless a token has said so meanwhile.
    pub fn name(&self, found: Vec<(UserId, String)>) {
        let state = &mut *self.state.lock();
        for (id, name) in found {
            if state.users.get(&id).is_some_and(|user| user.name.is_none()) {
                state.call(id, Some(name));
            }
        }
        self.woken.notify_one();
    }

    /// The sockets of those of these users who are here, with what is for each.
    pub fn here<T: Copy>(&self, users: &[(UserId, T)]) -> Vec<(T, Vec<Way>)> {
        let state = self.state.lock();
        let ways = users.iter().filter_map(|(user, what)| Some((*what, &state.users.get(user)?.ways)));
        ways.filter(|(_, ways)| !ways.is_empty()).map(|(what, ways)| (what, ways.clone())).collect()
    }

    /// The sockets of those who see what some users see: theirs that are not admins', and with `and_admins` all
    /// admins'. Each once.
    pub fn who_see(&self, users: &[UserId], and_admins: bool) -> Vec<Way> {
        let state = self.state.lock();
        let theirs = users.iter().filter_map(|user| state.users.get(user)).flat_map(|user| &user.ways);
        let theirs = theirs.filter(|way| !state.admins.contains_key(&way.socket.id));
        let admins = and_admins.then(|| state.admins.values()).into_iter().flatten();
        theirs.chain(admins.map(|admin| &admin.way)).cloned().collect()
    }
}

impl State {
    fn enter(&mut self, id: UserId, way: Way) {
        let user = self.users.entry(id).or_default();
        self.gone.remove(&(user.last_seen.0, id));
        if !user.ways.iter().any(|known| known.is_to(&way.socket)) {
            if user.ways.is_empty() {
                // Most have one.
                user.ways.reserve_exact(1);
            }
            user.ways.push(way);
            self.changed.insert(id);
        }
    }

    /// Has no socket any more.
    fn part(&mut self, id: UserId, at: Instant) {
        let user = self.users.entry(id).or_default();
        self.gone.remove(&(user.last_seen.0, id));
        user.last_seen = (at, Timestamp::now());
        self.gone.insert((at, id));
    }

    /// A user is called this, unless nothing is said; `true`: that is new.
    fn call(&mut self, id: UserId, name: Option<String>) -> bool {
        let (Some(user), Some(name)) = (self.users.get_mut(&id), name) else { return false };
        let is_new = user.name.as_deref() != Some(&*name);
        if is_new {
            user.name = Some(name.into());
            self.changed.insert(id);
        }
        is_new
    }

    /// Is a name to be looked up? Then it will be.
    fn is_unnamed(&mut self, id: UserId) -> bool {
        let is_unnamed = self.users.get(&id).is_some_and(|user| user.name.is_none());
        if is_unnamed && self.unnamed.len() < MAX_UNNAMED {
            self.unnamed.insert(id);
        }
        is_unnamed
    }
}

/// With no socket, seen now.
impl Default for User {
    fn default() -> Self {
        Self { name: None, ways: Vec::new(), last_seen: (Instant::now(), Timestamp::now()) }
    }
}

impl User {
    fn row(&self, id: UserId, now: Timestamp) -> ActiveUser {
        let last_seen = if self.ways.is_empty() { self.last_seen.1 } else { now };
        ActiveUser { user_id: id, user_name: self.name.clone(), last_seen, sockets: self.ways.len() }
    }
}

impl fmt::Debug for People {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("People").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_goes_again_and_again_pushes_nobody_out() {
        let (people, now) = (People::default(), Instant::now());
        let [ada, bob] = [1, 2].map(|id| UserId::new(id).unwrap());
        people.state.lock().part(ada, now);
        for micros in 1..=MAX_SEEN as u64 {
            people.state.lock().part(bob, now + Duration::from_micros(micros));
        }
        people.forget(now);
        assert_eq!(people.active().total, 2);
        people.forget(now + SEEN);
        assert_eq!(people.active().users[0].user_id, bob);
        people.forget(now + 2 * SEEN);
        assert_eq!(people.active().total, 0);
    }
}
