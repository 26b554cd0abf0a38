//! The users connected to this node: their sockets, their names, and which sockets are admins'.
//!
//! Guests of share links are not in it. In open mode every socket is an admin's, and a user's as soon as the client has
//! said which. Announcing who is here is in `gateway/announcer.rs`.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap, HashSet},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use socketioxide::socket::Sid;
use tokio::{sync::Notify, time::sleep};
use tracing::debug;

use crate::{
    domain::{
        access::Caller,
        id::UserId,
        presence::{ActiveUser, ActiveUsers, MAX_ROWS, Name, Person},
        time::Timestamp,
    },
    gateway::socket::outbox::{Kind, SocketHandle, Subscriber, body},
    service::{Service, access::Identity},
};

/// Limits the users that have gone and are still listed.
const MAX_GONE: usize = 10_000;
/// Limits the bytes of one list. More than half of what a socket may have unread would hold up everything else that it
/// is sent.
const MAX_LIST_BYTES: usize = 32 * 1024;
/// Limits the bytes of lists that go to admins in one round. The next round goes to those whose list is oldest.
const MAX_ROUND_BYTES: usize = 4 * 1024 * 1024;
/// Limits the users whose name is to be looked up. Further users have none until a token says it, or they connect
/// again.
const MAX_NAME_LOOKUPS: usize = 10_000;
const LOOKUP_INTERVAL: Duration = Duration::from_millis(100);
/// The pause after names could not be looked up.
const LOOKUP_RETRY_DELAY: Duration = Duration::from_secs(1);

/// All users that are connected here, or were a moment ago.
#[derive(Default)]
pub struct Directory {
    /// The users. Written when a socket connects, says which user it belongs to, changes its rights or disconnects.
    /// This lock is taken before a session's, with no room's, and never held while anything is sent.
    state: Mutex<State>,
    /// A signal that the list of users has changed.
    pub changed: Notify,
    lookup_needed: Notify,
}

#[derive(Default)]
struct State {
    users: HashMap<UserId, User>,
    admins: HashMap<Sid, Admin>,
    /// The users that have gone, each once, by the time at which they went.
    gone: BTreeSet<(Instant, UserId)>,
    /// The users whose name is to be looked up, because no token has said it here.
    name_lookups: HashSet<UserId>,
    /// The number of times that the list has changed.
    list_version: u64,
}

struct User {
    name: Option<Name>,
    /// There are none when the user has gone a moment ago.
    sockets: Vec<SocketHandle>,
    /// The time at which the last socket went.
    last_seen: (Instant, Timestamp),
}

struct Admin {
    recipient: Recipient,
    list_version: u64,
}

/// A socket that is sent an event of a list.
#[derive(Clone)]
pub struct Recipient {
    /// `None`: in open mode, if the client has not said which user it is.
    pub user: Option<UserId>,
    pub handle: SocketHandle,
}

impl Directory {
    /// Adds a socket, or takes over that it now belongs to a user or has other rights, unless its session has ended.
    /// `name_said` returns the name that tokens have last said of a user.
    pub fn place(&self, subscriber: &Subscriber, name_said: impl FnOnce(UserId) -> Option<String>) {
        let Subscriber { handle, session } = subscriber;
        let state = &mut *self.state.lock();
        // This is checked under the lock: a session first ends, and then is its socket removed.
        if session.has_ended() {
            return;
        }
        let identity = session.identity();
        let (user, is_admin) = match identity.as_ref().map(|identity| &identity.caller) {
            None => (None, true),
            Some(Caller::Anyone(user)) => (Some(*user), true),
            Some(Caller::User { id, is_admin }) => (Some(*id), *is_admin),
            Some(Caller::Guest(_)) => return,
        };
        if is_admin {
            let new = || Admin { recipient: Recipient { user, handle: handle.clone() }, list_version: 0 };
            state.admins.entry(handle.id()).or_insert_with(new).recipient.user = user;
        } else {
            state.admins.remove(&handle.id());
        }
        if let (Some(user), Some(Identity { caller, name, .. })) = (user, identity) {
            state.add_socket(user, handle);
            // The name is asked for under the lock: a token that says another one after this finds the user here.
            state.rename(user, name_said(user).or(name));
            if matches!(caller, Caller::User { .. }) && state.request_lookup(user) {
                self.lookup_needed.notify_one();
            }
        }
        self.changed.notify_one();
    }

    pub fn remove(&self, user: UserId, socket: &SocketHandle) {
        let state = &mut *self.state.lock();
        state.admins.remove(&socket.id());
        let Some(known) = state.users.get_mut(&user) else { return };
        let before = known.sockets.len();
        known.sockets.retain(|known| !known.is_same(socket));
        if known.sockets.len() == before {
            return;
        }
        if known.sockets.is_empty() {
            known.sockets = Vec::new();
            state.record_gone(user, Instant::now());
        }
        state.list_version += 1;
        self.changed.notify_one();
    }

    /// Takes a new name that a token has said. `name_said`: see [`Directory::place`].
    pub fn rename(&self, user: UserId, name_said: impl FnOnce(UserId) -> Option<String>) {
        let state = &mut *self.state.lock();
        if state.users.contains_key(&user) && state.rename(user, name_said(user)) {
            self.changed.notify_one();
        }
    }

    /// Returns a user with its name, if that is known here.
    pub fn person(&self, user_id: UserId) -> Person {
        let user_name = self.state.lock().users.get(&user_id).and_then(|user| user.name.clone());
        Person { user_id, user_name }
    }

    /// Lists all users that are here, or were a moment ago.
    pub fn active_users(&self) -> ActiveUsers {
        let (state, now) = (self.state.lock(), Timestamp::now());
        let mut rows: Vec<_> = state.users.iter().collect();
        let total = rows.len();
        let key = |(id, user): &(&UserId, &User)| {
            (user.sockets.is_empty().then_some(Reverse(user.last_seen.1)), id.get())
        };
        if total > MAX_ROWS {
            rows.select_nth_unstable_by_key(MAX_ROWS, key);
            rows.truncate(MAX_ROWS);
        }
        rows.sort_unstable_by_key(key);
        ActiveUsers { users: rows.into_iter().map(|(id, user)| user.row(*id, now)).collect(), total }
    }

    /// Sends the list to admins that were sent an older one. An admin that does not keep up gets it later. It returns
    /// `true` if anybody was sent one.
    pub fn send_list(&self) -> bool {
        let (list_version, mut owed) = {
            let state = self.state.lock();
            let owed = state.admins.values().filter(|admin| admin.list_version < state.list_version);
            let owed = owed.map(|admin| (admin.list_version, admin.recipient.handle.clone()));
            (state.list_version, owed.collect::<Vec<_>>())
        };
        owed.retain(|(_, handle)| handle.outbox.connection.has_room());
        if owed.is_empty() {
            return false;
        }
        let mut active = self.active_users();
        active.fit(MAX_LIST_BYTES);
        let body = body(&active);
        owed.sort_unstable_by_key(|(last, _)| *last);
        owed.truncate((MAX_ROUND_BYTES / body.get().len()).max(1));
        for (_, handle) in owed {
            match self.state.lock().admins.get_mut(&handle.id()) {
                Some(admin) => admin.list_version = list_version,
                // The socket is no longer an admin's.
                None => continue,
            }
            handle.send(Kind::UserList, body.clone());
        }
        true
    }

    /// Forgets who went longer ago than `listed`.
    pub fn forget_gone(&self, now: Instant, listed: Duration) {
        let state = &mut *self.state.lock();
        while let Some((at, user)) = state.gone.first().copied()
            && (now >= at + listed || state.gone.len() > MAX_GONE)
        {
            state.gone.pop_first();
            state.users.remove(&user);
            state.list_version += 1;
        }
    }

    /// Checks whether there are users to be forgotten, or admins that are owed a list.
    pub fn has_work(&self) -> bool {
        let state = self.state.lock();
        let is_owed = |admin: &Admin| admin.list_version < state.list_version;
        !state.gone.is_empty() || state.admins.values().any(is_owed)
    }

    /// Looks up the names of users whose tokens do not say one, for ever. A name that a token has said in the meantime
    /// stays.
    pub async fn look_up_names(&self, service: &Service) {
        loop {
            self.lookup_needed.notified().await;
            let users = Vec::from_iter(std::mem::take(&mut self.state.lock().name_lookups));
            let pause = match service.names.look_up(&users).await {
                Ok(found) => {
                    let state = &mut *self.state.lock();
                    for (id, name) in found {
                        if state.users.get(&id).is_some_and(|user| user.name.is_none()) {
                            state.rename(id, Some(name));
                        }
                    }
                    self.changed.notify_one();
                    LOOKUP_INTERVAL
                }
                Err(error) => {
                    debug!(%error, "names of users could not be read");
                    let state = &mut *self.state.lock();
                    if users.iter().filter(|user| state.request_lookup(**user)).count() > 0 {
                        self.lookup_needed.notify_one();
                    }
                    LOOKUP_RETRY_DELAY
                }
            };
            sleep(pause).await;
        }
    }

    pub fn sockets_of(&self, user: UserId) -> Vec<SocketHandle> {
        self.state.lock().users.get(&user).map(|user| user.sockets.clone()).unwrap_or_default()
    }

    /// Returns the sockets, each once, that see what some users see: the users' own that are not admins', and with
    /// `and_admins` all admins'.
    pub fn recipients(&self, users: &[UserId], and_admins: bool) -> Vec<Recipient> {
        let state = self.state.lock();
        let known = users.iter().filter_map(|id| Some((*id, &state.users.get(id)?.sockets)));
        let theirs = known.flat_map(|(id, sockets)| sockets.iter().map(move |handle| (id, handle)));
        let theirs = theirs.filter(|(_, handle)| !state.admins.contains_key(&handle.id()));
        let theirs = theirs.map(|(id, handle)| Recipient { user: Some(id), handle: handle.clone() });
        let admins = and_admins.then(|| state.admins.values()).into_iter().flatten();
        theirs.chain(admins.map(|admin| admin.recipient.clone())).collect()
    }
}

impl State {
    fn add_socket(&mut self, id: UserId, socket: &SocketHandle) {
        let user = self.users.entry(id).or_default();
        self.gone.remove(&(user.last_seen.0, id));
        if !user.sockets.iter().any(|known| known.is_same(socket)) {
            if user.sockets.is_empty() {
                // Most users have one.
                user.sockets.reserve_exact(1);
            }
            user.sockets.push(socket.clone());
            self.list_version += 1;
        }
    }

    /// Records that a user has no socket any more.
    fn record_gone(&mut self, id: UserId, at: Instant) {
        let user = self.users.entry(id).or_default();
        self.gone.remove(&(user.last_seen.0, id));
        user.last_seen = (at, Timestamp::now());
        self.gone.insert((at, id));
    }

    /// Sets the name of a user, if there is one. It returns `true` if the name is new.
    fn rename(&mut self, id: UserId, name: Option<String>) -> bool {
        let (Some(user), Some(name)) = (self.users.get_mut(&id), name) else { return false };
        let is_new = user.name.as_deref() != Some(&*name);
        if is_new {
            user.name = Some(name.into());
            self.list_version += 1;
        }
        is_new
    }

    /// Requests that the name of a user is looked up if it is not known. It returns `true` if that is the case.
    fn request_lookup(&mut self, id: UserId) -> bool {
        let is_unknown = self.users.get(&id).is_some_and(|user| user.name.is_none());
        if is_unknown && self.name_lookups.len() < MAX_NAME_LOOKUPS {
            self.name_lookups.insert(id);
        }
        is_unknown
    }
}

/// A user without a socket, seen now.
impl Default for User {
    fn default() -> Self {
        Self { name: None, sockets: Vec::new(), last_seen: (Instant::now(), Timestamp::now()) }
    }
}

impl User {
    fn row(&self, id: UserId, now: Timestamp) -> ActiveUser {
        let last_seen = if self.sockets.is_empty() { self.last_seen.1 } else { now };
        ActiveUser { user_id: id, user_name: self.name.clone(), last_seen, sockets: self.sockets.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_goes_again_and_again_pushes_nobody_out() {
        let (directory, now) = (Directory::default(), Instant::now());
        let [ada, bob] = [1, 2].map(|id| UserId::new(id).unwrap());
        directory.state.lock().record_gone(ada, now);
        for micros in 1..=MAX_GONE as u64 {
            directory.state.lock().record_gone(bob, now + Duration::from_micros(micros));
        }
        let listed = Duration::from_secs(60);
        directory.forget_gone(now, listed);
        assert_eq!(directory.active_users().total, 2);
        directory.forget_gone(now + listed, listed);
        assert_eq!(directory.active_users().users[0].user_id, bob);
        directory.forget_gone(now + 2 * listed, listed);
        assert_eq!(directory.active_users().total, 0);
    }
}
