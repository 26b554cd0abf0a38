//! How much one caller may ask for, over all of their sockets and requests, and priced by what it costs others.
//!
//! A caller is the user of a valid token, or else the address ([`Payer`]). Some budgets are spent before something
//! is done; others are charged once its cost is known, and whoever is in debt is refused the next time. The
//! arithmetic is in `budget.rs`; which limits there are, with their defaults, in [`crate::config`].

mod permits;

use std::{
    hash::Hash,
    net::IpAddr,
    num::NonZeroU32,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::time::sleep;

pub use permits::{RoomPermits, SocketPermit};

use permits::{MaxCount, Permits};

use super::budget::{Budget, Budgets, Rate};
use crate::{
    config::{self, Quotas},
    domain::{
        access::Payer,
        error::{Error, Result},
        id::{LocationId, ShareId, UserId},
    },
    metrics::{Counter, Metrics},
    net::client::network,
    storage::Toll,
};

/// Seconds' worth of requests that may come at once, after a pause: a map that opens, a phone back on line.
const REQUESTS_BURST: u32 = 5;
/// The same for events: a socket that is back joins all its rooms.
const EVENTS_BURST: u32 = 20;
/// The same for messages of one user, and of all users of a room.
const USER_CHATS_BURST: u32 = 8;
const ROOM_CHATS_BURST: u32 = 4;
/// The same for deliveries, and for rows that are read.
const COSTS_BURST: u32 = 10;
/// Changes of one person's memberships that one user may make at once.
const PAIR_NOTICES_AT_ONCE: u32 = 10;
/// Seconds' worth of changed locations that one user may send another whole at once.
const PAIR_UPDATES_BURST: u32 = 10;
/// An address stands for so many users, where a limit has no setting for addresses.
const USERS_OF_AN_ADDRESS: u32 = 5;
/// How many addresses may try passwords of one share link as often as they may.
const ADDRESSES: u32 = 20;
/// How often budgets that are full again are forgotten.
const FORGET_INTERVAL: Duration = Duration::from_secs(10);
/// How many people one may have told for the price of a request.
const TOLD: u64 = 25;
/// Bytes sent to one member for the price of one delivery.
const DELIVERY_BYTES: usize = 16 * 1024;
/// Text that costs nothing beside the request that asks for it, and bytes beyond it for the price of one row: of
/// the largest Features ten a second may be read by one user, and a hundred at once.
const FREE_TEXT: usize = 16 * 1024;
const ROW_BYTES: usize = 512;
/// Bytes of a body for the price of one delivery: with the default setting a user writes 20 MB a second, after a burst
/// of ten times as much.
const BODY_BYTES: usize = 1024;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Every limit on callers.
#[derive(Debug)]
pub struct Limits {
    requests: ByCaller,
    refused: Limit<IpAddr>,
    password: Limit<(ShareId, IpAddr)>,
    /// From all addresses.
    passwords: Limit<ShareId>,
    events: ByCaller,
    /// `None`: no limit.
    socket_events: Option<Rate>,
    socket_events_limited: Counter,
    user_chats: ByCaller,
    room_chats: Limit<LocationId>,
    /// Members reached, and bytes sent to them.
    deliveries: ByCaller,
    /// Rows that the database had to read.
    rows: ByCaller,
    /// Changes by one caller that concern one person.
    pair_notices: ByCaller<(Payer, UserId)>,
    /// Locations whose changes one caller sends to one person whole.
    pair_updates: ByCaller<(Payer, UserId)>,
    permits: Permits,
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
}

/// A budget for each key, and how often one was spent.
#[derive(Debug)]
struct Limit<K> {
    budgets: Budgets<K>,
    limited: Counter,
}

/// A budget for each user of a token, and another for each address without one.
#[derive(Debug)]
struct ByCaller<K = Payer> {
    user: Limit<K>,
    address: Limit<K>,
    detail: &'static str,
}

/// The budget of one socket.
#[derive(Debug)]
pub struct SocketEvents {
    rate: Rate,
    /// Written at every event of the socket.
    budget: Mutex<Budget>,
    limited: Counter,
}

impl Limits {
    /// As configured.
    pub fn start(limits: &config::Limits, metrics: &Metrics) -> Arc<Self> {
        let counts = limits.quotas.as_ref();
        let made = Making { counts, metrics };
        let limits = Arc::new(Self {
            requests: made.by_caller(
                ["user_requests", "address_requests"],
                |counts| [counts.user_requests, counts.address_requests],
                REQUESTS_BURST,
                "too many requests of this caller",
            ),
            refused: made.a_second("address_refusals", |counts| counts.address_refusals, REQUESTS_BURST),
            password: made.limit("share_passwords", |counts| {
                let tries = counts.share_passwords.get();
                Rate::new(tries, MINUTE, tries)
            }),
            passwords: made.limit("share_passwords", |counts| {
                let tries = counts.share_passwords.get().saturating_mul(ADDRESSES);
                Rate::new(tries, MINUTE, tries)
            }),
            events: made.by_caller(
                ["user_events", "address_events"],
                |counts| [counts.user_events, counts.address_events],
                EVENTS_BURST,
                "too many events of this caller, over all sockets",
            ),
            socket_events: counts.map(|counts| per_second(counts.socket_events, EVENTS_BURST)),
            socket_events_limited: made.counter("socket_events"),
            user_chats: made.by_caller(
                ["user_chats", "address_chats"],
                |counts| of_users(counts.user_chats),
                USER_CHATS_BURST,
                "too many messages of this caller",
            ),
            room_chats: made.a_second("room_chats", |counts| counts.room_chats, ROOM_CHATS_BURST),
            deliveries: made.by_caller(
                ["user_deliveries", "address_deliveries"],
                |counts| of_users(counts.user_deliveries),
                COSTS_BURST,
                "what this caller did before had to be sent to too many, or was too large for so many",
            ),
            rows: made.by_caller(
                ["user_rows", "address_rows"],
                |counts| of_users(counts.user_rows),
                COSTS_BURST,
                "what this caller asked for before made the database read too much",
            ),
            pair_notices: made.by_caller_at(
                ["pair_notices"; 2],
                |counts| of_users(counts.pair_notices).map(per_minute),
                "too many changes of what this caller shares with this user",
            ),
            pair_updates: made.by_caller(
                ["pair_updates"; 2],
                |counts| of_users(counts.pair_updates),
                PAIR_UPDATES_BURST,
                "too many locations of this caller changed in the list of this user",
            ),
            permits: Permits::new(&made),
            body_timeout: limits.body_timeout,
            too_large: made.counter("bytes"),
            too_slow: made.counter("body_timeout"),
            too_many_searches: made.counter("searches"),
            too_many_answers: made.counter("answer_bytes"),
            too_many_bodies: made.counter("body_bytes"),
            foreign: made.counter("host_or_origin"),
            too_many_waiting: made.counter("socket_inbox"),
        });
        let kept = Arc::downgrade(&limits);
        let help = "Budgets of callers that are not full";
        metrics.watch("budgets", help, move || Weak::upgrade(&kept).map_or(0, |limits| limits.kept()));
        limits
    }

    /// A request with a token of this user.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn take_user_request(&self, user: UserId) -> Result<()> {
        self.requests.take(Payer::User(user))
    }

    /// A request from this address without a token.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn take_address_request(&self, from: IpAddr) -> Result<()> {
        self.requests.take(payer(None, from))
    }

    /// A request from this address that shows nothing valid.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn take_refusal(&self, from: IpAddr) -> Result<()> {
        self.refused.take(network(from), "too many requests from this address that had to be refused")
    }

    /// A password tried for a share link from this address.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn take_password_attempt(&self, share: ShareId, from: IpAddr) -> Result<()> {
        let detail = "too many passwords were tried for this share link";
        self.password.take((share, network(from)), detail)?;
        self.passwords.take(share, detail)
    }

    /// The budget of a socket that connects; `None`: no limit.
    pub fn socket_events(&self) -> Option<SocketEvents> {
        let budget = || Mutex::new(Budget::new(Instant::now()));
        let limited = || self.socket_events_limited.clone();
        self.socket_events.map(|rate| SocketEvents { rate, budget: budget(), limited: limited() })
    }

    /// An event of a caller, whichever socket it came from.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn take_event(&self, payer: Payer) -> Result<()> {
        self.events.take(payer)
    }

    /// A message of a caller to a room whose member they are.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn take_chat(&self, payer: Payer, room: LocationId, members: usize, bytes: usize) -> Result<()> {
        self.user_chats.take(payer)?;
        // Who is refused for what they owe takes nothing from the room.
        self.deliveries.is_paid(payer)?;
        self.room_chats.take(room, "too many messages in this room")?;
        self.charge_delivery(payer, members, bytes)
    }

    /// What a caller wants to do is sent to so many, each time so large. Paid for before it is done: however many
    /// such things are on their way, few are let through that are not paid for.
    ///
    /// # Errors
    /// `rate_limited`: what they did before is not paid for.
    pub fn charge_delivery(&self, payer: Payer, members: usize, bytes: usize) -> Result<()> {
        self.deliveries.charge_if_paid(payer, deliveries(members, bytes))
    }

    /// The same of what is done already.
    pub fn record_delivery(&self, payer: Payer, members: usize, bytes: usize) {
        self.deliveries.charge(payer, deliveries(members, bytes));
    }

    /// May a caller ask for something that makes the database read many rows?
    ///
    /// # Errors
    /// `rate_limited`: what they asked for before is not paid for.
    pub fn check_rows(&self, payer: Payer) -> Result<()> {
        self.rows.is_paid(payer)
    }

    /// So many rows were read for a caller.
    pub fn record_rows(&self, payer: Payer, rows: usize) {
        self.rows.charge(payer, rows as u64);
    }

    /// Text of so many bytes was read for a caller. Beyond the first 16 KiB it costs as many rows.
    pub fn record_text(&self, payer: Payer, bytes: usize) {
        let rows = text_rows(bytes);
        if rows > 0 {
            self.record_rows(payer, rows);
        }
    }

    /// May a caller have a changed location sent to a person whole? Otherwise only its id is.
    pub fn try_show(&self, payer: Payer, person: UserId) -> bool {
        // Nobody is refused anything.
        self.pair_updates.of(payer).budgets.try_take((payer, person), 1).is_ok()
    }

    fn forget(&self) {
        self.by_caller().into_iter().for_each(ByCaller::forget);
        [&self.pair_notices, &self.pair_updates].into_iter().for_each(ByCaller::forget);
        self.refused.budgets.forget();
        self.password.budgets.forget();
        self.passwords.budgets.forget();
        self.room_chats.budgets.forget();
    }

    fn kept(&self) -> usize {
        let by_caller = self.by_caller().map(ByCaller::kept).into_iter();
        let pairs = [&self.pair_notices, &self.pair_updates].map(ByCaller::kept);
        by_caller.chain(pairs).sum::<usize>()
            + self.refused.budgets.len()
            + self.password.budgets.len()
            + self.passwords.budgets.len()
            + self.room_chats.budgets.len()
    }

    fn by_caller(&self) -> [&ByCaller; 5] {
        [&self.requests, &self.events, &self.user_chats, &self.deliveries, &self.rows]
    }
}

impl Toll for Limits {
    fn may_tell(&self, payer: Payer) -> Result<()> {
        self.requests.is_paid_for(payer, "too many people had to be told of what was done before")
    }

    fn told(&self, payer: Payer, people: usize) {
        self.requests.charge(payer, people as u64 / TOLD);
    }

    fn may_concern(&self, payer: Payer, person: UserId) -> Result<()> {
        self.pair_notices.of(payer).take((payer, person), self.pair_notices.detail)
    }
}

/// What limits are made of.
struct Making<'a> {
    counts: Option<&'a Quotas>,
    metrics: &'a Metrics,
}

impl Making<'_> {
    fn counter(&self, name: &'static str) -> Counter {
        self.metrics.limited(name)
    }

    fn limit<K: Hash + Eq>(&self, name: &'static str, rate: impl Fn(&Quotas) -> Rate) -> Limit<K> {
        Limit { budgets: Budgets::new(self.counts.map(rate)), limited: self.counter(name) }
    }

    fn a_second<K: Hash + Eq>(
        &self,
        name: &'static str,
        units: impl Fn(&Quotas) -> NonZeroU32,
        burst: u32,
    ) -> Limit<K> {
        self.limit(name, |counts| per_second(units(counts), burst))
    }

    /// `units`: of a user, and of an address.
    fn by_caller<K: Hash + Eq>(
        &self,
        names: [&'static str; 2],
        units: fn(&Quotas) -> [NonZeroU32; 2],
        burst: u32,
        detail: &'static str,
    ) -> ByCaller<K> {
        self.by_caller_at(names, |counts| units(counts).map(|units| per_second(units, burst)), detail)
    }

    fn by_caller_at<K: Hash + Eq>(
        &self,
        names: [&'static str; 2],
        rates: impl Fn(&Quotas) -> [Rate; 2],
        detail: &'static str,
    ) -> ByCaller<K> {
        let [user, address] = [0, 1].map(|at| self.limit(names[at], |counts| rates(counts)[at]));
        ByCaller { user, address, detail }
    }

    fn most(&self, name: &'static str, of: fn(&Quotas) -> NonZeroU32) -> MaxCount {
        MaxCount { most: self.counts.map(|counts| of(counts).get()), limited: self.counter(name) }
    }
}

/// So many units a second, and so many seconds' worth at once.
fn per_second(units: NonZeroU32, burst: u32) -> Rate {
    Rate::new(units.get(), SECOND, units.get().saturating_mul(burst))
}

/// So many units a minute, and as many at once, or a few more.
fn per_minute(units: NonZeroU32) -> Rate {
    Rate::new(units.get(), MINUTE, units.get().max(PAIR_NOTICES_AT_ONCE))
}

/// What a user has, and an address for all its users.
fn of_users(units: NonZeroU32) -> [NonZeroU32; 2] {
    [units, units.saturating_mul(NonZeroU32::new(USERS_OF_AN_ADDRESS).expect("some"))]
}

impl SocketEvents {
    /// An event of the socket.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn take(&self) -> Result<()> {
        let taken = self.budget.lock().try_take(&self.rate, 1, Instant::now());
        taken.map_err(|wait| limited(&self.limited, "too many events of this socket", wait))
    }
}

impl<K: Hash + Eq> Limit<K> {
    fn take(&self, key: K, detail: &'static str) -> Result<()> {
        self.budgets.try_take(key, 1).map_err(|wait| limited(&self.limited, detail, wait))
    }

    fn is_paid(&self, key: &K, detail: &'static str) -> Result<()> {
        self.budgets.debt(key).map_or(Ok(()), |wait| Err(limited(&self.limited, detail, wait)))
    }
}

impl<K: Hash + Eq> ByCaller<K> {
    fn of(&self, payer: Payer) -> &Limit<K> {
        match payer {
            Payer::User(_) => &self.user,
            Payer::Address(_) => &self.address,
        }
    }

    fn forget(&self) {
        self.user.budgets.forget();
        self.address.budgets.forget();
    }

    fn kept(&self) -> usize {
        self.user.budgets.len() + self.address.budgets.len()
    }
}

impl ByCaller {
    fn take(&self, payer: Payer) -> Result<()> {
        self.of(payer).take(payer, self.detail)
    }

    fn charge(&self, payer: Payer, units: u64) {
        self.of(payer).budgets.charge(payer, units);
    }

    fn charge_if_paid(&self, payer: Payer, units: u64) -> Result<()> {
        let Limit { budgets, limited: counter } = self.of(payer);
        budgets.charge_if_paid(payer, units).map_err(|wait| limited(counter, self.detail, wait))
    }

    fn is_paid(&self, payer: Payer) -> Result<()> {
        self.is_paid_for(payer, self.detail)
    }

    fn is_paid_for(&self, payer: Payer, detail: &'static str) -> Result<()> {
        self.of(payer).is_paid(&payer, detail)
    }
}

fn limited(count: &Counter, detail: &'static str, wait: Duration) -> Error {
    count.inc();
    Error::limited(detail, wait)
}

/// What it costs to take something in and to send it to so many. A body is paid for also where nobody listens, because
/// the database takes it.
fn deliveries(members: usize, bytes: usize) -> u64 {
    let each = bytes.div_ceil(DELIVERY_BYTES).max(1) as u64;
    (members as u64 * each).max(bytes.div_ceil(BODY_BYTES) as u64)
}

/// What it costs to read so much text.
fn text_rows(bytes: usize) -> usize {
    bytes.saturating_sub(FREE_TEXT).div_ceil(ROW_BYTES)
}

/// Whose budgets a caller draws on: the user of a valid token, or else the address.
pub fn payer(user: Option<UserId>, from: IpAddr) -> Payer {
    user.map_or_else(|| Payer::Address(network(from)), Payer::User)
}

/// Forgets budgets that are full again, until the limits are dropped.
pub(super) async fn forget(limits: Weak<Limits>) {
    loop {
        sleep(FORGET_INTERVAL).await;
        let Some(limits) = limits.upgrade() else { return };
        limits.forget();
    }
}
