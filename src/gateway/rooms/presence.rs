//! The users that are in one room, and what its members are to be told of their coming and going.
//!
//! This code only decides. Several sockets of one user are one user, and a user that is back in time was never away.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::{
    domain::{
        id::UserId,
        presence::{MAX_ROWS, PresenceState},
    },
    service::limits::PAID_SOCKETS,
};

/// A room of more users than this is announced only the number of its sockets.
const MAX_NAMED_USERS: usize = 50;
/// A sender to a room pays for at most this many sockets of guests.
const PAID_GUESTS: usize = 1_000;

#[derive(Debug, Default)]
pub struct Presence {
    /// This includes users that are away and may come back.
    users: HashMap<UserId, Sockets>,
    sockets: usize,
    guests: usize,
    /// The number of users' sockets among them, of each user at most [`PAID_SOCKETS`].
    paid: usize,
    /// The number that was announced last, unless names were announced since.
    announced_count: Option<usize>,
    counted_at: Option<Instant>,
}

#[derive(Debug)]
struct Sockets {
    number: usize,
    /// The time from which a user without sockets counts as gone.
    gone_at: Option<Instant>,
    /// The room was told that the user has come.
    is_announced: bool,
}

/// A change of presence that the members of a room are to be told: a user has come or gone, or (`None`) the number of
/// sockets has changed, in a room of many users.
pub type Announcement = Option<(UserId, PresenceState)>;

#[derive(Debug, PartialEq)]
pub struct Due {
    pub announcements: Vec<Announcement>,
    pub sockets: usize,
    /// There will be more to announce even if nothing happens.
    pub is_due_again: bool,
}

/// The way in which a socket leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// The client meant it, or lost its right.
    ForGood,
    /// The connection was lost, and the client may be back soon.
    Lost,
}

impl Presence {
    /// Counts a user's or (`None`) a guest's socket in.
    pub fn enter(&mut self, occupant: Option<UserId>) {
        self.sockets += 1;
        let Some(user) = occupant else {
            self.guests += 1;
            return;
        };
        let new = Sockets { number: 0, gone_at: None, is_announced: false };
        let sockets = self.users.entry(user).or_insert(new);
        sockets.number += 1;
        sockets.gone_at = None;
        self.paid += usize::from(sockets.number <= PAID_SOCKETS);
    }

    /// Counts a socket out. A user without another one is gone at `gone_at`, if it has not come back before.
    pub fn leave(&mut self, occupant: Option<UserId>, gone_at: Instant) {
        self.sockets -= 1;
        let Some(user) = occupant else {
            self.guests -= 1;
            return;
        };
        let Some(sockets) = self.users.get_mut(&user) else { return };
        self.paid -= usize::from(sockets.number <= PAID_SOCKETS);
        sockets.number -= 1;
        if sockets.number == 0 {
            sockets.gone_at = Some(gone_at);
        }
    }

    /// Returns the number of sockets that a sender to the room pays for.
    pub fn paid_sockets(&self) -> usize {
        self.paid + self.guests.min(PAID_GUESTS)
    }

    /// Returns what is to be announced by now, each once; numbers at most once in `count_interval`.
    pub fn take_due(&mut self, now: Instant, count_interval: Duration) -> Due {
        let (mut announcements, mut is_due_again) = (Vec::new(), false);
        self.users.retain(|user, sockets| match sockets.gone_at {
            None => true,
            // The user came and went before anything was announced.
            Some(_) if !sockets.is_announced => false,
            Some(gone_at) if gone_at <= now => {
                announcements.push(Some((*user, PresenceState::Leave)));
                false
            }
            Some(_) => {
                is_due_again = true;
                true
            }
        });
        for (user, sockets) in self.users.iter_mut().filter(|(_, sockets)| sockets.gone_at.is_none()) {
            if !std::mem::replace(&mut sockets.is_announced, true) {
                announcements.push(Some((*user, PresenceState::Join)));
            }
        }
        self.users.shrink_to(2 * self.users.len());
        if self.users.len() <= MAX_NAMED_USERS {
            self.announced_count = None;
        } else {
            announcements.clear();
            if self.announced_count != Some(self.sockets) {
                match self.counted_at {
                    Some(at) if now < at + count_interval => is_due_again = true,
                    _ => {
                        (self.announced_count, self.counted_at) = (Some(self.sockets), Some(now));
                        announcements.push(None);
                    }
                }
            }
        }
        Due { announcements, sockets: self.sockets, is_due_again }
    }

    /// Lists the users that are in the room now, by id, and returns the number of sockets. A user that may be back is
    /// listed: whoever asks is told if it stays away, and is not told if it comes back.
    pub fn list(&self, now: Instant) -> (Vec<UserId>, usize) {
        let is_here =
            |sockets: &Sockets| sockets.gone_at.is_none_or(|gone_at| sockets.is_announced && now < gone_at);
        let here = self.users.iter().filter(|(_, sockets)| is_here(sockets));
        let mut users: Vec<_> = here.map(|(user, _)| *user).collect();
        users.sort_unstable_by_key(|user| user.get());
        users.truncate(MAX_ROWS);
        (users, self.sockets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: Option<UserId> = None;
    const GRACE: Duration = Duration::from_secs(3);
    const COUNT_INTERVAL: Duration = Duration::from_secs(1);

    fn user(id: u64) -> Option<UserId> {
        UserId::new(id)
    }

    fn joined(id: u64) -> Announcement {
        Some((UserId::new(id).unwrap(), PresenceState::Join))
    }

    fn left(id: u64) -> Announcement {
        Some((UserId::new(id).unwrap(), PresenceState::Leave))
    }

    fn announced(room: &mut Presence, now: Instant) -> Vec<Announcement> {
        room.take_due(now, COUNT_INTERVAL).announcements
    }

    fn due<const N: usize>(announcements: [Announcement; N], sockets: usize, is_due_again: bool) -> Due {
        Due { announcements: announcements.into(), sockets, is_due_again }
    }

    #[test]
    fn several_sockets_of_a_user_are_one_user() {
        let (mut room, now) = (Presence::default(), Instant::now());
        room.enter(user(1));
        assert_eq!(announced(&mut room, now), [joined(1)]);
        room.enter(user(1));
        room.leave(user(1), now);
        assert_eq!(room.take_due(now, COUNT_INTERVAL), due([], 1, false));
        room.leave(user(1), now);
        assert_eq!(room.take_due(now, COUNT_INTERVAL), due([left(1)], 0, false));
        assert_eq!(room.take_due(now, COUNT_INTERVAL), due([], 0, false));
    }

    #[test]
    fn of_one_user_and_of_guests_only_so_many_sockets_are_paid_for() {
        let (mut room, now) = (Presence::default(), Instant::now());
        (0..1_000).for_each(|_| room.enter(user(1)));
        room.enter(user(2));
        assert_eq!(room.paid_sockets(), PAID_SOCKETS + 1);
        (0..997).for_each(|_| room.leave(user(1), now + GRACE));
        assert_eq!(room.paid_sockets(), 3 + 1);
        (0..2 * PAID_GUESTS).for_each(|_| room.enter(GUEST));
        assert_eq!(room.paid_sockets(), 3 + 1 + PAID_GUESTS);
        (0..2 * PAID_GUESTS).for_each(|_| room.leave(GUEST, now));
        (0..3).for_each(|_| room.leave(user(1), now));
        room.leave(user(2), now);
        assert_eq!(room.paid_sockets(), 0);
    }

    #[test]
    fn who_is_back_in_time_was_never_away() {
        let (mut room, now) = (Presence::default(), Instant::now());
        room.enter(user(1));
        announced(&mut room, now);
        room.leave(user(1), now + GRACE);
        assert_eq!(room.take_due(now + GRACE / 2, COUNT_INTERVAL), due([], 0, true));
        room.enter(user(1));
        assert_eq!(room.take_due(now + GRACE * 2, COUNT_INTERVAL), due([], 1, false));
        room.leave(user(1), now + GRACE);
        assert_eq!(room.take_due(now + GRACE, COUNT_INTERVAL), due([left(1)], 0, false));
    }

    #[test]
    fn who_may_be_back_is_there_and_asking_changes_nothing() {
        let (mut room, now) = (Presence::default(), Instant::now());
        let [one, two] = [1, 2].map(|id| UserId::new(id).unwrap());
        for id in [1, 2] {
            room.enter(user(id));
        }
        announced(&mut room, now);
        room.leave(user(1), now + GRACE);
        assert_eq!(room.list(now), (vec![one, two], 1));
        room.enter(user(1));
        assert_eq!(announced(&mut room, now), []);
        room.leave(user(1), now + GRACE);
        assert_eq!(room.list(now + GRACE), (vec![two], 1));
        assert_eq!(announced(&mut room, now + GRACE), [left(1)]);
        // A user that said so is gone at once, and one that was never announced is not there either.
        room.leave(user(2), now);
        room.enter(user(3));
        room.leave(user(3), now + GRACE);
        assert_eq!(room.list(now), (vec![], 0));
    }

    #[test]
    fn who_came_and_went_unseen_is_not_announced() {
        let (mut room, now) = (Presence::default(), Instant::now());
        room.enter(user(1));
        room.leave(user(1), now + GRACE);
        assert_eq!(room.take_due(now, COUNT_INTERVAL), due([], 0, false));
    }

    #[test]
    fn guests_are_counted_and_never_named() {
        let (mut room, now) = (Presence::default(), Instant::now());
        room.enter(GUEST);
        room.enter(user(1));
        assert_eq!(room.take_due(now, COUNT_INTERVAL), due([joined(1)], 2, false));
        assert_eq!(room.list(now), (vec![UserId::new(1).unwrap()], 2));
        room.leave(GUEST, now);
        assert_eq!(room.take_due(now, COUNT_INTERVAL), due([], 1, false));
    }

    #[test]
    fn a_thousand_who_come_at_once_are_announced_as_a_number_once_a_second() {
        let (mut room, mut now) = (Presence::default(), Instant::now());
        let (mut names, mut counts) = (0, 0);
        for id in 0..1_000 {
            room.enter(user(id));
            for announcement in announced(&mut room, now) {
                match announcement {
                    Some(_) => names += 1,
                    None => counts += 1,
                }
            }
            now += Duration::from_millis(2);
        }
        assert_eq!((names, counts), (MAX_NAMED_USERS, 2));
        assert!(room.take_due(now, COUNT_INTERVAL).is_due_again, "the last number is still to be announced");
        assert_eq!(room.take_due(now + COUNT_INTERVAL, COUNT_INTERVAL), due([None], 1_000, false));
        assert_eq!(room.take_due(now + COUNT_INTERVAL, COUNT_INTERVAL), due([], 1_000, false));
    }

    #[test]
    fn fifty_users_are_named_and_one_more_is_not() {
        let (mut room, now) = (Presence::default(), Instant::now());
        (0..50).for_each(|id| room.enter(user(id)));
        assert_eq!(announced(&mut room, now).len(), 50);
        room.enter(user(50));
        assert_eq!(announced(&mut room, now), [None]);
        room.leave(user(50), now);
        assert_eq!(announced(&mut room, now), [left(50)]);
    }
}
