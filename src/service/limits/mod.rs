//! Limits on what one caller may ask for over all sockets and requests, priced by what it costs others.
//!
//! A caller is the user of a valid token, or else the address ([`Payer`]). Some budgets are spent before something is
//! done. Others are charged once its cost is known, and whoever is in debt is refused the next time. The arithmetic is
//! in [`crate::budgets`]; which limits there are, with their defaults, in [`crate::config`].

mod builder;
mod permits;

use std::{
    net::IpAddr,
    num::NonZeroU32,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::time::sleep;

pub use permits::{RoomPermits, SocketPermit};

use builder::{Builder, MINUTE, per_second, with_address};
use permits::Permits;

use crate::{
    budgets::{Budget, CallerLimit, FanOutBudgets, Limit, Rate, refusal},
    config::{self, Quotas},
    domain::{
        access::Payer,
        error::Result,
        id::{LocationId, ShareId, UserId},
    },
    metrics::{Counter, Metrics},
    net::address::network,
};

/// An author pays for at most this many sockets of one user, so that nobody can make others pay for more by connecting
/// more often.
pub const PAID_SOCKETS: usize = 5;
/// Seconds' worth of requests that may come at once after a pause: a map that opens, a phone back on line.
const REQUESTS_BURST: u32 = 5;
/// Seconds' worth of events that may come at once: a socket that reconnects joins all its rooms.
const EVENTS_BURST: u32 = 20;
/// Seconds' worth of messages of one user that may come at once.
const USER_CHATS_BURST: u32 = 8;
/// Seconds' worth of messages in one room that may come at once.
const ROOM_CHATS_BURST: u32 = 4;
/// Seconds' worth of deliveries, and of rows read, that may be spent at once.
const COSTS_BURST: u32 = 10;
/// Changes of one person's memberships that one user may make at once.
const PAIR_NOTICES_AT_ONCE: u32 = 10;
/// Seconds' worth of changed locations that one user may send another whole at once.
const PAIR_UPDATES_BURST: u32 = 10;
/// The addresses that may each try as many passwords of one share link as the setting allows.
const ADDRESSES_OF_A_SHARE: u32 = 20;
/// The interval at which budgets that are full again are forgotten.
const FORGET_INTERVAL: Duration = Duration::from_secs(10);
/// Bytes sent to one member for the price of one delivery.
const DELIVERY_BYTES: usize = 16 * 1024;
/// Text that costs nothing beside the request that asks for it.
const FREE_TEXT_BYTES: usize = 16 * 1024;
/// Bytes of further text for the price of one row. By default one user may read ten of the largest Features a second,
/// and a hundred at once.
const ROW_BYTES: usize = 512;
/// Bytes of a body for the price of one delivery. By default one user may write 20 MB a second, after a burst of ten
/// times as much.
const BODY_BYTES: usize = 1024;

/// Every limit on callers.
#[derive(Debug)]
pub struct Limits {
    /// Requests, and the people whom one caller's changes are told to.
    fan_out: Arc<FanOutBudgets>,
    refusals: Limit<IpAddr>,
    /// Attempts at the password of a share link from one address.
    password_attempts: Limit<(ShareId, IpAddr)>,
    /// Attempts at the password of a share link from all addresses.
    all_password_attempts: Limit<ShareId>,
    events: CallerLimit,
    /// The rate of each socket; `None`: no limit.
    socket_events: Option<Rate>,
    socket_event_refusals: Counter,
    user_chats: CallerLimit,
    room_chats: Limit<LocationId>,
    /// Sockets that are sent something, weighted by its size.
    deliveries: CallerLimit,
    /// Rows that the database reads.
    rows: CallerLimit,
    /// The changed locations that one caller sends whole to one person.
    pair_updates: CallerLimit<(Payer, UserId)>,
    permits: Arc<Permits>,
    /// The time that a request's body may take.
    pub body_timeout: Duration,
    /// Counts bodies and messages that are too large.
    pub too_large: Counter,
    /// Counts bodies that took too long.
    pub too_slow: Counter,
    /// Counts requests for another host, or from a page of another origin.
    pub foreign: Counter,
    /// Counts events that came while too many were waiting.
    pub too_many_waiting: Counter,
}

/// The budget of one socket's events.
#[derive(Debug)]
pub struct SocketEvents {
    rate: Rate,
    /// The budget, which every event of the socket draws on.
    budget: Mutex<Budget>,
    refusals: Counter,
}

impl Limits {
    /// Creates the limits that the settings name.
    pub fn new(limits: &config::Limits, metrics: &Metrics) -> Arc<Self> {
        let quotas = limits.quotas.as_ref();
        let build = Builder { quotas, metrics };
        let password_rate = |quotas: &Quotas, addresses: u32| {
            let attempts = quotas.share_passwords.get().saturating_mul(addresses);
            Rate::new(attempts, MINUTE, attempts)
        };
        let limits = Arc::new(Self {
            fan_out: Arc::new(fan_out(&build)),
            refusals: build.limit_per_second(
                "address_refusals",
                |quotas| quotas.address_refusals,
                REQUESTS_BURST,
            ),
            password_attempts: build.limit("share_passwords", |quotas| password_rate(quotas, 1)),
            all_password_attempts: build
                .limit("share_passwords", |quotas| password_rate(quotas, ADDRESSES_OF_A_SHARE)),
            events: build.caller_limit(
                ["user_events", "address_events"],
                |quotas| [quotas.user_events, quotas.address_events],
                EVENTS_BURST,
                "too many events of this caller, over all sockets",
            ),
            socket_events: quotas.map(|quotas| per_second(quotas.socket_events, EVENTS_BURST)),
            socket_event_refusals: metrics.limited("socket_events"),
            user_chats: build.caller_limit(
                ["user_chats", "address_chats"],
                |quotas| with_address(quotas.user_chats),
                USER_CHATS_BURST,
                "too many messages of this caller",
            ),
            room_chats: build.limit_per_second("room_chats", |quotas| quotas.room_chats, ROOM_CHATS_BURST),
            deliveries: build.caller_limit(
                ["user_deliveries", "address_deliveries"],
                |quotas| with_address(quotas.user_deliveries),
                COSTS_BURST,
                "what this caller did before had to be sent to too many, or was too large for so many",
            ),
            rows: build.caller_limit(
                ["user_rows", "address_rows"],
                |quotas| with_address(quotas.user_rows),
                COSTS_BURST,
                "what this caller asked for before made the database read too much",
            ),
            pair_updates: build.caller_limit(
                ["pair_updates"; 2],
                |quotas| with_address(quotas.pair_updates),
                PAIR_UPDATES_BURST,
                "too many locations of this caller changed in the list of this user",
            ),
            permits: Arc::new(Permits::new(&build)),
            body_timeout: limits.body_timeout,
            too_large: metrics.limited("bytes"),
            too_slow: metrics.limited("body_timeout"),
            foreign: metrics.limited("host_or_origin"),
            too_many_waiting: metrics.limited("socket_inbox"),
        });
        let kept = Arc::downgrade(&limits);
        let help = "Budgets of callers that are not full";
        metrics.watch("budgets", help, move || Weak::upgrade(&kept).map_or(0, |limits| limits.count_kept()));
        limits
    }

    /// The budgets from which the writer takes what it costs to tell many people.
    pub fn fan_out(&self) -> Arc<FanOutBudgets> {
        self.fan_out.clone()
    }

    /// Takes a request of a caller.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn take_request(&self, payer: Payer) -> Result<()> {
        self.fan_out.requests.take(payer)
    }

    /// Takes a request from this address that shows nothing valid.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn take_refusal(&self, from: IpAddr) -> Result<()> {
        self.refusals.take(network(from), "too many requests from this address that had to be refused")
    }

    /// Takes an attempt at the password of a share link from this address.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn take_password_attempt(&self, share: ShareId, from: IpAddr) -> Result<()> {
        let detail = "too many passwords were tried for this share link";
        self.password_attempts.take((share, network(from)), detail)?;
        self.all_password_attempts.take(share, detail)
    }

    /// Creates the budget of a socket that connects; `None`: no limit.
    pub fn socket_events(&self) -> Option<SocketEvents> {
        let budget = || Mutex::new(Budget::new(Instant::now()));
        let refusals = || self.socket_event_refusals.clone();
        self.socket_events.map(|rate| SocketEvents { rate, budget: budget(), refusals: refusals() })
    }

    /// Takes an event of a caller, whichever socket it came from.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn take_event(&self, payer: Payer) -> Result<()> {
        self.events.take(payer)
    }

    /// Takes a message of a caller to a room that they are in.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn take_chat(&self, payer: Payer, room: LocationId, sockets: usize, bytes: usize) -> Result<()> {
        self.user_chats.take(payer)?;
        // A caller who is refused for a debt takes nothing from the room.
        self.deliveries.check_debt(payer)?;
        self.room_chats.take(room, "too many messages in this room")?;
        self.charge_delivery(payer, sockets, bytes)
    }

    /// Charges a caller for something that is sent to so many sockets, before it is done. However many of such things
    /// are on their way, few are let through that are not paid for.
    ///
    /// # Errors
    /// `rate_limited` where what the caller did before is not paid for.
    pub fn charge_delivery(&self, payer: Payer, sockets: usize, bytes: usize) -> Result<()> {
        self.deliveries.charge_unless_in_debt(payer, deliveries(sockets, bytes))
    }

    /// Charges a caller for something that was sent.
    pub fn record_delivery(&self, payer: Payer, sockets: usize, bytes: usize) {
        self.deliveries.charge(payer, deliveries(sockets, bytes));
    }

    /// Checks that a caller may ask for something that makes the database read many rows.
    ///
    /// # Errors
    /// `rate_limited` where what the caller asked for before is not paid for.
    pub fn check_rows(&self, payer: Payer) -> Result<()> {
        self.rows.check_debt(payer)
    }

    /// Charges a caller for rows that were read.
    pub fn record_rows(&self, payer: Payer, rows: usize) {
        self.rows.charge(payer, rows as u64);
    }

    /// Charges a caller for text that was read, beyond the first 16 KiB.
    pub fn record_text(&self, payer: Payer, bytes: usize) {
        self.record_rows(payer, text_rows(bytes));
    }

    /// Takes a changed location that a caller sends whole to a person. Where this is `false` only its id is sent.
    pub fn try_show(&self, payer: Payer, person: UserId) -> bool {
        self.pair_updates.limit_of(payer).budgets.try_take((payer, person), 1).is_ok()
    }

    /// Admits a socket that connects, as long as the permit is kept.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn admit_socket(&self, user: Option<UserId>, from: IpAddr) -> Result<SocketPermit> {
        Permits::admit_socket(&self.permits, payer(user, from))
    }

    /// Creates the permits for the rooms of a socket, which is in none yet.
    pub fn room_permits(&self, payer: Payer) -> RoomPermits {
        RoomPermits { permits: self.permits.clone(), payer, rooms: 0 }
    }

    fn caller_limits(&self) -> [&CallerLimit; 5] {
        [&self.fan_out.requests, &self.events, &self.user_chats, &self.deliveries, &self.rows]
    }

    fn pair_limits(&self) -> [&CallerLimit<(Payer, UserId)>; 2] {
        [&self.fan_out.pair_notices, &self.pair_updates]
    }

    fn forget(&self) {
        self.caller_limits().into_iter().for_each(CallerLimit::forget);
        self.pair_limits().into_iter().for_each(CallerLimit::forget);
        self.refusals.budgets.forget();
        self.password_attempts.budgets.forget();
        self.all_password_attempts.budgets.forget();
        self.room_chats.budgets.forget();
    }

    fn count_kept(&self) -> usize {
        let callers: usize = self.caller_limits().into_iter().map(CallerLimit::count_kept).sum();
        let pairs: usize = self.pair_limits().into_iter().map(CallerLimit::count_kept).sum();
        let passwords =
            self.password_attempts.budgets.count_kept() + self.all_password_attempts.budgets.count_kept();
        callers
            + pairs
            + passwords
            + self.refusals.budgets.count_kept()
            + self.room_chats.budgets.count_kept()
    }
}

impl SocketEvents {
    /// Takes an event of the socket.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn take(&self) -> Result<()> {
        let taken = self.budget.lock().try_take(&self.rate, 1, Instant::now());
        taken.map_err(|wait| refusal(&self.refusals, "too many events of this socket", wait))
    }
}

fn fan_out(build: &Builder<'_>) -> FanOutBudgets {
    let pair_rate = |units: NonZeroU32| Rate::new(units.get(), MINUTE, units.get().max(PAIR_NOTICES_AT_ONCE));
    FanOutBudgets {
        requests: build.caller_limit(
            ["user_requests", "address_requests"],
            |quotas| [quotas.user_requests, quotas.address_requests],
            REQUESTS_BURST,
            "too many requests of this caller",
        ),
        pair_notices: build.caller_limit_at(
            ["pair_notices"; 2],
            |quotas| with_address(quotas.pair_notices).map(pair_rate),
            "too many changes of what this caller shares with this user",
        ),
    }
}

/// The price of taking something in and sending it to so many sockets. A body is paid for even where nobody listens,
/// because the database takes it.
fn deliveries(sockets: usize, bytes: usize) -> u64 {
    let each = bytes.div_ceil(DELIVERY_BYTES).max(1) as u64;
    (sockets as u64 * each).max(bytes.div_ceil(BODY_BYTES) as u64)
}

/// The price of reading so much text, in rows.
fn text_rows(bytes: usize) -> usize {
    bytes.saturating_sub(FREE_TEXT_BYTES).div_ceil(ROW_BYTES)
}

/// The payer of a caller: the user of a valid token, or else the address.
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

#[cfg(test)]
mod tests;
