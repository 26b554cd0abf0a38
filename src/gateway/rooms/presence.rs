//! Who is in one room, and what its members are to be told of it.
//!
//! Decisions only: no locks, no sockets, no clock. It is told of sockets and tells of users: several sockets of
//! one user are one user, and who is back within the grace was never away.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::domain::{
    id::UserId,
    presence::{MAX_ROWS, PresenceState},
};

/// How long a user may be away without a word: a phone that changes networks.
pub const GRACE: Duration = Duration::from_secs(3);
/// In rooms of more users only the number of sockets is told,
const MANY: usize = 50;
/// and no more often.
const EVERY: Duration = Duration::from_secs(1);
/// A sender to a room pays for at most so many sockets of each user, and for so many of all guests: nobody can make
/// others pay for more by connecting more often.
pub const PAID_SOCKETS: usize = 5;
const PAID_GUESTS: usize = 1_000;

/// Who is in a room.
#[derive(Debug, Default)]
pub struct Presence {
    /// Also those who are away and may come back.
    users: HashMap<UserId, Here>,
    /// Of everybody, guests included.
    sockets: usize,
    /// Guests' sockets among them.
    guests: usize,
    /// Users' sockets among them, of each user [`PAID_SOCKETS`] at most.
    paid: usize,
    /// How many were told last instead of names, and when.
    told: (Option<usize>, Option<Instant>),
}

#[derive(Debug)]
struct Here {
    sockets: usize,
    /// While there are none: when they count as gone.
    until: Option<Instant>,
    /// The room was told that they have come.
    is_known: bool,
}

/// What is to be told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum News {
    Moved(UserId, PresenceState),
    /// Only how many there are.
    Count,
}

/// How a socket leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// Somebody meant it: it said so, or lost its right.
    ForGood,
    /// It may be back soon.
    Lost,
}

impl Presence {
    /// A socket is in; `None`: a guest's.
    pub fn enter(&mut self, user: Option<UserId>) {
        self.sockets += 1;
        let Some(user) = user else {
            self.guests += 1;
            return;
        };
        let new = Here { sockets: 0, until: None, is_known: false };
        let here = self.users.entry(user).or_insert(new);
        here.sockets += 1;
        here.until = None;
        self.paid += usize::from(here.sockets <= PAID_SOCKETS);
    }

    /// A socket that was in is out.
    pub fn leave(&mut self, user: Option<UserId>, how: Leaving, now: Instant) {
        self.sockets -= 1;
        let Some(user) = user else {
            self.guests -= 1;
            return;
        };
        let Some(here) = self.users.get_mut(&user) else { return };
        self.paid -= usize::from(here.sockets <= PAID_SOCKETS);
        here.sockets -= 1;
        if here.sockets == 0 {
            here.until = Some(if how == Leaving::ForGood { now } else { now + GRACE });
        }
    }

    /// Counts the sockets that a sender to the room pays for.
    pub fn paid_sockets(&self) -> usize {
        self.paid + self.guests.min(PAID_GUESTS)
    }

    /// What is to be told by now, each once, and how many sockets there are. With it whether there will be more
    /// even if nothing happens.
    pub fn news(&mut self, now: Instant) -> (Vec<News>, usize, bool) {
        let mut news = Vec::new();
        let mut is_waiting = false;
        self.users.retain(|user, here| match here.until {
            None => true,
            // Came and went while nobody was told anything.
            Some(_) if !here.is_known => false,
            Some(until) if until <= now => {
                news.push(News::Moved(*user, PresenceState::Leave));
                false
            }
            Some(_) => {
                is_waiting = true;
                true
            }
        });
        for (user, here) in self.users.iter_mut().filter(|(_, here)| here.until.is_none()) {
            if !std::mem::replace(&mut here.is_known, true) {
                news.push(News::Moved(*user, PresenceState::Join));
            }
        }
        self.users.shrink_to(2 * self.users.len());
        if self.users.len() > MANY {
            news.clear();
            match self.told {
                (Some(sockets), _) if sockets == self.sockets => {}
                (_, Some(at)) if now < at + EVERY => is_waiting = true,
                _ => {
                    self.told = (Some(self.sockets), Some(now));
                    news.push(News::Count);
                }
            }
        } else {
            self.told.0 = None;
        }
        (news, self.sockets, is_waiting)
    }

    /// Who is there now, by id, and how many sockets there are. Who may be back is there: whoever asks is told if
    /// they stay away, and not if they do not.
    pub fn list(&self, now: Instant) -> (Vec<UserId>, usize) {
        let is_here = |here: &Here| here.until.is_none_or(|until| here.is_known && now < until);
        let here = self.users.iter().filter(|(_, here)| is_here(here));
        let mut users: Vec<_> = here.map(|(user, _)| *user).collect();
        users.sort_unstable_by_key(|user| user.get());
        users.truncate(MAX_ROWS);
        (users, self.sockets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: u64) -> UserId {
        UserId::new(id).unwrap()
    }

    fn come(id: u64) -> News {
        News::Moved(user(id), PresenceState::Join)
    }

    fn gone(id: u64) -> News {
        News::Moved(user(id), PresenceState::Leave)
    }

    fn told(room: &mut Presence, now: Instant) -> Vec<News> {
        room.news(now).0
    }

    #[test]
    fn several_sockets_of_a_user_are_one_user() {
        let (mut room, now) = (Presence::default(), Instant::now());
        room.enter(Some(user(1)));
        assert_eq!(told(&mut room, now), [come(1)]);
        room.enter(Some(user(1)));
        room.leave(Some(user(1)), Leaving::ForGood, now);
        assert_eq!(room.news(now), (vec![], 1, false));
        room.leave(Some(user(1)), Leaving::ForGood, now);
        assert_eq!(room.news(now), (vec![gone(1)], 0, false));
        assert_eq!(room.news(now), (vec![], 0, false));
    }

    #[test]
    fn of_one_user_and_of_guests_only_so_many_sockets_are_paid_for() {
        let (mut room, now) = (Presence::default(), Instant::now());
        (0..1_000).for_each(|_| room.enter(Some(user(1))));
        room.enter(Some(user(2)));
        assert_eq!(room.paid_sockets(), PAID_SOCKETS + 1);
        (0..997).for_each(|_| room.leave(Some(user(1)), Leaving::Lost, now));
        assert_eq!(room.paid_sockets(), 3 + 1);
        (0..2 * PAID_GUESTS).for_each(|_| room.enter(None));
        assert_eq!(room.paid_sockets(), 3 + 1 + PAID_GUESTS);
        (0..2 * PAID_GUESTS).for_each(|_| room.leave(None, Leaving::ForGood, now));
        (0..3).for_each(|_| room.leave(Some(user(1)), Leaving::ForGood, now));
        room.leave(Some(user(2)), Leaving::ForGood, now);
        assert_eq!(room.paid_sockets(), 0);
    }

    #[test]
    fn who_is_back_in_time_was_never_away() {
        let (mut room, now) = (Presence::default(), Instant::now());
        room.enter(Some(user(1)));
        told(&mut room, now);
        room.leave(Some(user(1)), Leaving::Lost, now);
        assert_eq!(room.news(now + GRACE / 2), (vec![], 0, true));
        room.enter(Some(user(1)));
        assert_eq!(room.news(now + GRACE * 2), (vec![], 1, false));
        room.leave(Some(user(1)), Leaving::Lost, now);
        assert_eq!(room.news(now + GRACE), (vec![gone(1)], 0, false));
    }

    #[test]
    fn who_may_be_back_is_there_and_asking_changes_nothing() {
        let (mut room, now) = (Presence::default(), Instant::now());
        for id in [1, 2] {
            room.enter(Some(user(id)));
        }
        told(&mut room, now);
        room.leave(Some(user(1)), Leaving::Lost, now);
        assert_eq!(room.list(now), (vec![user(1), user(2)], 1));
        room.enter(Some(user(1)));
        assert_eq!(told(&mut room, now), []);
        room.leave(Some(user(1)), Leaving::Lost, now);
        assert_eq!(room.list(now + GRACE), (vec![user(2)], 1));
        assert_eq!(told(&mut room, now + GRACE), [gone(1)]);
        // Who has said so is gone at once, and who was never told of is not there either.
        room.leave(Some(user(2)), Leaving::ForGood, now);
        room.enter(Some(user(3)));
        room.leave(Some(user(3)), Leaving::Lost, now);
        assert_eq!(room.list(now), (vec![], 0));
    }

    #[test]
    fn who_came_and_went_unseen_is_not_told_of() {
        let (mut room, now) = (Presence::default(), Instant::now());
        room.enter(Some(user(1)));
        room.leave(Some(user(1)), Leaving::Lost, now);
        assert_eq!(room.news(now), (vec![], 0, false));
    }

    #[test]
    fn guests_are_counted_and_never_named() {
        let (mut room, now) = (Presence::default(), Instant::now());
        room.enter(None);
        room.enter(Some(user(1)));
        assert_eq!(room.news(now), (vec![come(1)], 2, false));
        assert_eq!(room.list(now), (vec![user(1)], 2));
        room.leave(None, Leaving::ForGood, now);
        assert_eq!(room.news(now), (vec![], 1, false));
    }

    #[test]
    fn a_thousand_who_come_at_once_are_told_as_a_number_once_a_second() {
        let (mut room, mut now) = (Presence::default(), Instant::now());
        let (mut names, mut counts) = (0, 0);
        for id in 0..1_000 {
            room.enter(Some(user(id)));
            for news in told(&mut room, now) {
                match news {
                    News::Moved(..) => names += 1,
                    News::Count => counts += 1,
                }
            }
            now += Duration::from_millis(2);
        }
        assert_eq!((names, counts), (MANY, 2));
        assert!(room.news(now).2, "the last number is still to be told");
        assert_eq!(room.news(now + EVERY), (vec![News::Count], 1_000, false));
        assert_eq!(room.news(now + EVERY), (vec![], 1_000, false));
    }

    #[test]
    fn fifty_users_are_named_and_one_more_is_not() {
        let (mut room, now) = (Presence::default(), Instant::now());
        (0..50).for_each(|id| room.enter(Some(user(id))));
        assert_eq!(told(&mut room, now).len(), 50);
        room.enter(Some(user(50)));
        assert_eq!(told(&mut room, now), [News::Count]);
        room.leave(Some(user(50)), Leaving::ForGood, now);
        assert_eq!(told(&mut room, now), [gone(50)]);
    }
}
