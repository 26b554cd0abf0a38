//! How much one caller may ask for: budgets that refill by themselves, and how much may be there at once.

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use governor::{
    NotUntil, Quota, RateLimiter,
    clock::{Clock, MonotonicClock, Reference},
    nanos::Nanos,
    state::{
        InMemoryState, NotKeyed, StateStore,
        keyed::{DashMapStateStore, ShrinkableKeyedStateStore},
    },
};
use parking_lot::Mutex;
use tokio::time::sleep;

use crate::{
    config::{self, Counts},
    domain::{
        access::{ShareId, Whose},
        error::{Error, Result},
        id::UserId,
    },
    metrics::{Counter, Metrics},
    storage::Toll,
};

/// Seconds' worth of requests that may come at once, after a pause: a map that opens, a phone back on line.
const REQUESTS_BURST: u32 = 5;
/// And of events of a socket: one that is back joins all its rooms.
const EVENTS_BURST: u32 = 20;
/// How many addresses may try passwords of one share link as often as they may.
const ADDRESSES: u32 = 20;
/// How often budgets that are full again are forgotten.
const FORGET: Duration = Duration::from_secs(10);
/// How many people one may have told for the price of a request.
const TOLD: u64 = 25;
/// Of an IPv6 address, what one customer has at least.
const NETWORK: u32 = 64;

/// Every limit on callers.
#[derive(Debug)]
pub struct Limits {
    user: Budgets<UserId>,
    address: Budgets<IpAddr>,
    refused: Budgets<IpAddr>,
    password: Budgets<(ShareId, IpAddr)>,
    /// From all addresses.
    passwords: Budgets<ShareId>,
    /// `None`: no limit.
    events: Option<Quota>,
    events_limited: Counter,
    rooms: Most,
    sockets: Most,
    user_sockets: Most,
    address_sockets: Most,
    /// How long a request's body may take.
    pub body_timeout: Duration,
    /// Of bodies and messages that are too large.
    pub too_large: Counter,
    /// Of bodies that took too long.
    pub too_slow: Counter,
    /// Of searches, answers and bodies of somebody who has too many under way.
    pub too_many_searches: Counter,
    /// See [`Limits::too_many_searches`].
    pub too_many_answers: Counter,
    /// See [`Limits::too_many_searches`].
    pub too_many_bodies: Counter,
    /// Of requests for another host, or from a page of another origin.
    pub foreign: Counter,
    /// Of events that came while too many waited.
    pub too_many_waiting: Counter,
    /// Written when sockets come and go.
    seats: Mutex<Seats>,
}

#[derive(Debug, Default)]
struct Seats {
    all: u32,
    by: HashMap<Whose, u32>,
}

/// How much there may be of something at once.
#[derive(Debug)]
struct Most {
    most: Option<u32>,
    limited: Counter,
}

/// A budget for each key; `None`: no limit.
struct Budgets<K: Hash + Eq + Clone> {
    of: Option<Budget<K>>,
    limited: Counter,
}

struct Budget<K: Hash + Eq + Clone> {
    quota: Quota,
    began: Instant,
    by: RateLimiter<K, Kept<K>, MonotonicClock>,
    kept: Kept<K>,
}

/// When budgets will be full, so that one can also be charged for what has been done.
struct Kept<K: Hash + Eq + Clone>(Arc<DashMapStateStore<K>>);

/// The budget of one socket.
pub struct Events {
    of: RateLimiter<NotKeyed, InMemoryState, MonotonicClock>,
    limited: Counter,
}

/// A socket's place among those connected, given back with it.
#[derive(Debug)]
pub struct Seat {
    limits: Arc<Limits>,
    whose: Whose,
}

impl Limits {
    /// As configured.
    pub fn start(limits: &config::Limits, metrics: &Metrics) -> Arc<Self> {
        let counts = limits.counts.as_ref();
        let limited = |limit| metrics.limited(limit);
        let most = |of: fn(&Counts) -> NonZeroU32, name| Most {
            most: counts.map(|counts| of(counts).get()),
            limited: limited(name),
        };
        let a_second = |of: fn(&Counts) -> NonZeroU32| {
            let of = counts.map(of);
            of.map(|of| Quota::per_second(of).allow_burst(times(of, REQUESTS_BURST)))
        };
        let events = counts.map(|counts| counts.socket_events);
        Arc::new(Self {
            user: Budgets::new(a_second(|counts| counts.user_requests), limited("user_requests")),
            address: Budgets::new(a_second(|counts| counts.address_requests), limited("address_requests")),
            refused: Budgets::new(a_second(|counts| counts.address_refusals), limited("address_refusals")),
            password: Budgets::new(
                counts.map(|counts| Quota::per_minute(counts.share_passwords)),
                limited("share_passwords"),
            ),
            passwords: Budgets::new(
                counts.map(|counts| Quota::per_minute(times(counts.share_passwords, ADDRESSES))),
                limited("share_passwords"),
            ),
            events: events.map(|of| Quota::per_second(of).allow_burst(times(of, EVENTS_BURST))),
            events_limited: limited("socket_events"),
            rooms: most(|counts| counts.socket_rooms, "socket_rooms"),
            sockets: most(|counts| counts.sockets, "sockets"),
            user_sockets: most(|counts| counts.user_sockets, "user_sockets"),
            address_sockets: most(|counts| counts.address_sockets, "address_sockets"),
            body_timeout: limits.body_timeout,
            too_large: limited("bytes"),
            too_slow: limited("body_timeout"),
            too_many_searches: limited("searches"),
            too_many_answers: limited("answer_bytes"),
            too_many_bodies: limited("body_bytes"),
            foreign: limited("host_or_origin"),
            too_many_waiting: limited("socket_inbox"),
            seats: Mutex::default(),
        })
    }

    /// A request with a token of this user.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn user(&self, user: UserId) -> Result<()> {
        self.user.take(&user, "too many requests of this user")
    }

    /// A request from this address without a token.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn address(&self, from: IpAddr) -> Result<()> {
        self.address.take(&network(from), "too many requests from this address")
    }

    /// A request from this address that shows nothing valid.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn refused(&self, from: IpAddr) -> Result<()> {
        self.refused.take(&network(from), "too many requests from this address that had to be refused")
    }

    /// A password tried for a share link from this address.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn password(&self, share: ShareId, from: IpAddr) -> Result<()> {
        let detail = "too many passwords were tried for this share link";
        self.password.take(&(share, network(from)), detail)?;
        self.passwords.take(&share, detail)
    }

    /// The budget of a socket that connects; `None`: no limit.
    pub fn events(&self) -> Option<Events> {
        let of = self.events.map(|events| RateLimiter::direct_with_clock(events, MonotonicClock));
        of.map(|of| Events { of, limited: self.events_limited.clone() })
    }

    /// May a socket that is in so many rooms enter another?
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn room(&self, rooms: usize) -> Result<()> {
        self.rooms.check(rooms, "rooms of one socket")
    }

    /// A socket connects, with a token of `user` or else from this address.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn seat(self: &Arc<Self>, user: Option<UserId>, from: IpAddr) -> Result<Seat> {
        let whose = whose(user, from);
        let mut seats = self.seats.lock();
        self.sockets.check(seats.all as usize, "sockets")?;
        let theirs = seats.by.entry(whose).or_default();
        match whose {
            Whose::User(_) => self.user_sockets.check(*theirs as usize, "sockets of one user")?,
            Whose::Address(_) => self.address_sockets.check(*theirs as usize, "sockets from one address")?,
        }
        *theirs += 1;
        seats.all += 1;
        Ok(Seat { limits: self.clone(), whose })
    }
}

impl Toll for Limits {
    fn may_tell(&self, whose: Whose) -> Result<()> {
        let detail = "too many people had to be told of what was done before";
        match whose {
            Whose::User(user) => self.user.is_paid(&user, detail),
            Whose::Address(from) => self.address.is_paid(&network(from), detail),
        }
    }

    fn told(&self, whose: Whose, people: usize) {
        let requests = people as u64 / TOLD;
        match whose {
            Whose::User(user) => self.user.charge(&user, requests),
            Whose::Address(from) => self.address.charge(&network(from), requests),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.limits.seats.lock();
        seats.all -= 1;
        if let Some(theirs) = seats.by.get_mut(&self.whose) {
            *theirs -= 1;
            if *theirs == 0 {
                seats.by.remove(&self.whose);
            }
        }
    }
}

impl Events {
    /// An event of the socket.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn take(&self) -> Result<()> {
        self.of.check().map_err(|until| limited(&self.limited, "too many events of this socket", &until))
    }
}

impl<K: Hash + Eq + Clone> Budgets<K> {
    fn new(quota: Option<Quota>, limited: Counter) -> Self {
        let of = quota.map(|quota| {
            let (began, kept) = (Instant::now(), Arc::<DashMapStateStore<K>>::default());
            let by = RateLimiter::new(quota, Kept(kept.clone()), MonotonicClock);
            Budget { quota, began, by, kept: Kept(kept) }
        });
        Self { of, limited }
    }

    fn take(&self, key: &K, detail: &'static str) -> Result<()> {
        let Some(of) = &self.of else { return Ok(()) };
        of.by.check_key(key).map_err(|until| limited(&self.limited, detail, &until))
    }

    /// Takes what may not be there any more.
    fn charge(&self, key: &K, requests: u64) {
        let Some(Budget { quota, began, kept, .. }) = self.of.as_ref().filter(|_| requests > 0) else {
            return;
        };
        let (now, price) = (Nanos::from(began.elapsed()), Nanos::from(quota.replenish_interval()) * requests);
        let charged =
            |full: Option<Nanos>| Ok::<_, Infallible>(((), full.map_or(now, |full| full.max(now)) + price));
        let Ok(()) = kept.measure_and_replace(key, charged);
    }

    /// Does nobody owe anything?
    fn is_paid(&self, key: &K, detail: &'static str) -> Result<()> {
        let Some(Budget { quota, began, kept, .. }) = &self.of else { return Ok(()) };
        let Err(full) = kept.measure_and_replace(key, Err::<(Infallible, Nanos), _>);
        let full = Duration::from(full.unwrap_or_default());
        // An empty one is full in that time.
        let paid = full.saturating_sub(quota.burst_size_replenished_in());
        match paid.checked_sub(began.elapsed()) {
            Some(wait) if !wait.is_zero() => {
                self.limited.inc();
                Err(Error::limited(detail, wait + quota.replenish_interval()))
            }
            _ => Ok(()),
        }
    }

    fn forget(&self) {
        if let Some(Budget { by, .. }) = &self.of {
            by.retain_recent();
            by.shrink_to_fit();
        }
    }
}

impl<K: Hash + Eq + Clone> StateStore for Kept<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, f: F) -> std::result::Result<T, E>
    where
        F: Fn(Option<Nanos>) -> std::result::Result<(T, Nanos), E>,
    {
        self.0.measure_and_replace(key, f)
    }
}

impl<K: Hash + Eq + Clone> ShrinkableKeyedStateStore<K> for Kept<K> {
    fn retain_recent(&self, drop_below: Nanos) {
        self.0.retain_recent(drop_below);
    }

    fn shrink_to_fit(&self) {
        self.0.shrink_to_fit();
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<K: Hash + Eq + Clone> fmt::Debug for Budgets<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budgets").finish_non_exhaustive()
    }
}

impl Most {
    fn check(&self, there: usize, what: &str) -> Result<()> {
        match self.most {
            Some(most) if there >= most as usize => {
                self.limited.inc();
                // Nobody knows when there will be fewer.
                Err(Error::limited(format!("at most {most} {what} at once"), Duration::from_secs(1)))
            }
            _ => Ok(()),
        }
    }
}

fn limited<P: Reference>(count: &Counter, detail: &'static str, until: &NotUntil<P>) -> Error
where
    MonotonicClock: Clock<Instant = P>,
{
    count.inc();
    Error::limited(detail, until.wait_time_from(MonotonicClock.now()))
}

fn times(of: NonZeroU32, more: u32) -> NonZeroU32 {
    of.saturating_mul(NonZeroU32::new(more).expect("a burst"))
}

/// Whose budgets a caller draws on: the user of a valid token, or else the address.
pub fn whose(user: Option<UserId>, from: IpAddr) -> Whose {
    user.map_or_else(|| Whose::Address(network(from)), Whose::User)
}

/// Whom an address stands for.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !(u128::MAX >> NETWORK)).into(),
        v4 => v4,
    }
}

/// Forgets budgets that are full again, until the limits are dropped.
pub(super) async fn forget(limits: Weak<Limits>) {
    loop {
        sleep(FORGET).await;
        let Some(limits) = limits.upgrade() else { return };
        limits.user.forget();
        limits.address.forget();
        limits.refused.forget();
        limits.password.forget();
        limits.passwords.forget();
    }
}
