//! Limits on what one caller may ask for, and on the time that a connection may take.
//!
//! `service/limits.rs` keeps the budgets. It adds what the settings do not name, such as how much may come at once.

use std::{num::NonZeroU32, ops::RangeInclusive, time::Duration};

use super::source::{Invalid, Source};

/// The range of everything that is counted. No server has so many of anything.
pub(super) const COUNTS: RangeInclusive<NonZeroU32> =
    NonZeroU32::MIN..=NonZeroU32::new(100_000_000).expect("not zero");
/// Below the lower bound not every event would fit. Nobody should wait for a message above the upper one.
const MESSAGE_BYTES: RangeInclusive<usize> = 32 * 1024..=16 * 1024 * 1024;
/// The setting bounds answers too. The library may lose what did not fit into one when a transport changes, so the lower
/// bound is high.
const POLL_BYTES: RangeInclusive<usize> = 1024 * 1024..=64 * 1024 * 1024;

/// The limits of callers and connections.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// The limits that `RATE_LIMITS=off` lifts; then `None`.
    pub quotas: Option<Quotas>,
    /// Bytes of one message from a socket.
    pub message_bytes: usize,
    /// Bytes of one long-polling request.
    pub poll_bytes: usize,
    /// The time that a request's headers may take, and that a connection may idle between requests.
    pub header_timeout: Duration,
    /// The time that a request's body may take.
    pub body_timeout: Duration,
    /// The time that a session may take to become a Socket.IO socket.
    pub handshake_timeout: Duration,
}

impl Limits {
    pub(super) fn read(source: &Source) -> Result<Self, Invalid> {
        // Read even where they do not count, so that a bad value is always found.
        let quotas = Quotas::read(source)?;
        let is_on = source.parse("RATE_LIMITS", "on or off", |text| match text {
            "on" => Some(true),
            "off" => Some(false),
            _ => None,
        })?;
        Ok(Self {
            quotas: is_on.then_some(quotas),
            message_bytes: source.number("MAX_MESSAGE_BYTES", "a number of bytes", &MESSAGE_BYTES)?,
            poll_bytes: source.number("MAX_POLL_BYTES", "a number of bytes", &POLL_BYTES)?,
            header_timeout: source.duration("HEADER_TIMEOUT")?,
            body_timeout: source.duration("BODY_TIMEOUT")?,
            handshake_timeout: source.duration("HANDSHAKE_TIMEOUT")?,
        })
    }
}

/// The settings `LIMIT_…`: rates, and numbers of what there may be at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Quotas {
    /// HTTP requests and handshakes a second with tokens of one user.
    pub user_requests: NonZeroU32,
    /// Requests a second from one address by share links or in open mode.
    pub address_requests: NonZeroU32,
    /// Requests and handshakes a second from one address that show nothing valid.
    pub address_refusals: NonZeroU32,
    /// Passwords tried a minute for one share link from one address.
    pub share_passwords: NonZeroU32,
    /// Sockets connected at once.
    pub sockets: NonZeroU32,
    /// Sockets connected at once with tokens of one user.
    pub user_sockets: NonZeroU32,
    /// Sockets connected at once from one address without a token.
    pub address_sockets: NonZeroU32,
    /// Sessions at once whose client is not known yet.
    pub handshakes: NonZeroU32,
    /// Sessions at once from one address whose client is not known yet.
    pub address_handshakes: NonZeroU32,
    /// Events a second from one socket.
    pub socket_events: NonZeroU32,
    /// Events a second from all sockets of one user.
    pub user_events: NonZeroU32,
    /// Events a second from all sockets of one address without a token.
    pub address_events: NonZeroU32,
    /// Rooms that one socket may be in.
    pub socket_rooms: NonZeroU32,
    /// Searches that one caller may be waiting for at once.
    pub searches: NonZeroU32,
    /// Bytes of answers that one caller may leave unread at once.
    pub answer_bytes: NonZeroU32,
    /// Bytes of bodies that have not come whole from one caller at once.
    pub body_bytes: NonZeroU32,
    /// Rooms that all sockets of one user may be in, counted for each socket.
    pub user_rooms: NonZeroU32,
    /// Rooms that all sockets of one address without a token may be in, counted for each socket.
    pub address_rooms: NonZeroU32,
    /// Messages a second from one user.
    pub user_chats: NonZeroU32,
    /// Messages a second to one room.
    pub room_chats: NonZeroU32,
    /// Sockets a second that one user reaches, each 16 KiB begun counted.
    pub user_deliveries: NonZeroU32,
    /// Rows read a second for one user, beyond one for each request.
    pub user_rows: NonZeroU32,
    /// Changes a minute that one user may make to what another is told of.
    pub pair_notices: NonZeroU32,
    /// Locations a second whose changes one user may have sent whole to another.
    pub pair_updates: NonZeroU32,
}

impl Quotas {
    fn read(source: &Source) -> Result<Self, Invalid> {
        let count = |name: &str| source.number(name, "an integer", &COUNTS);
        Ok(Self {
            user_requests: count("LIMIT_USER_REQUESTS")?,
            address_requests: count("LIMIT_ADDRESS_REQUESTS")?,
            address_refusals: count("LIMIT_ADDRESS_REFUSALS")?,
            share_passwords: count("LIMIT_SHARE_PASSWORDS")?,
            sockets: count("LIMIT_SOCKETS")?,
            user_sockets: count("LIMIT_USER_SOCKETS")?,
            address_sockets: count("LIMIT_ADDRESS_SOCKETS")?,
            handshakes: count("LIMIT_HANDSHAKES")?,
            address_handshakes: count("LIMIT_ADDRESS_HANDSHAKES")?,
            socket_events: count("LIMIT_SOCKET_EVENTS")?,
            user_events: count("LIMIT_USER_EVENTS")?,
            address_events: count("LIMIT_ADDRESS_EVENTS")?,
            socket_rooms: count("LIMIT_SOCKET_ROOMS")?,
            searches: count("LIMIT_SEARCHES")?,
            answer_bytes: count("LIMIT_ANSWER_BYTES")?,
            body_bytes: count("LIMIT_BODY_BYTES")?,
            user_rooms: count("LIMIT_USER_ROOMS")?,
            address_rooms: count("LIMIT_ADDRESS_ROOMS")?,
            user_chats: count("LIMIT_USER_CHATS")?,
            room_chats: count("LIMIT_ROOM_CHATS")?,
            user_deliveries: count("LIMIT_USER_DELIVERIES")?,
            user_rows: count("LIMIT_USER_ROWS")?,
            pair_notices: count("LIMIT_PAIR_NOTICES")?,
            pair_updates: count("LIMIT_PAIR_UPDATES")?,
        })
    }
}
