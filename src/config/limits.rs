//! Limits on what one caller may ask for, and on the time that a connection may take.
//!
//! `service/limits/` keeps the budgets. It adds what the settings do not name, such as how much may come at once.

use std::{num::NonZeroU32, ops::RangeInclusive, time::Duration};

use super::source::{Invalid, Source};

/// The range of everything that is counted. No server has so many of anything.
pub(super) const COUNTS: RangeInclusive<NonZeroU32> =
    NonZeroU32::MIN..=NonZeroU32::new(100_000_000).expect("not zero");
/// Below the lower bound not every event would fit. Nobody should wait for a message above the upper one.
const MESSAGE_BYTES: RangeInclusive<usize> = 32 * 1024..=16 * 1024 * 1024;
/// The setting bounds answers too. The library may lose what did not fit into one when a transport changes, so the
/// lower bound is high.
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
        let is_on = source.choice("RATE_LIMITS", "on or off", &[("on", true), ("off", false)])?;
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

/// Declares [`Quotas`]: a field for each setting `LIMIT_…`.
macro_rules! quotas {
    ($($field:ident: $setting:literal,)*) => {
        /// The settings `LIMIT_…`: rates, and numbers of what there may be at once. The table in `settings.rs` says
        /// what each of them counts.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Quotas {
            $(#[doc = concat!("The setting `", $setting, "`.")] pub $field: NonZeroU32,)*
        }

        impl Quotas {
            fn read(source: &Source) -> Result<Self, Invalid> {
                Ok(Self { $($field: source.number($setting, "an integer", &COUNTS)?,)* })
            }
        }
    };
}

quotas! {
    user_requests: "LIMIT_USER_REQUESTS",
    address_requests: "LIMIT_ADDRESS_REQUESTS",
    address_refusals: "LIMIT_ADDRESS_REFUSALS",
    share_passwords: "LIMIT_SHARE_PASSWORDS",
    sockets: "LIMIT_SOCKETS",
    user_sockets: "LIMIT_USER_SOCKETS",
    address_sockets: "LIMIT_ADDRESS_SOCKETS",
    handshakes: "LIMIT_HANDSHAKES",
    address_handshakes: "LIMIT_ADDRESS_HANDSHAKES",
    socket_events: "LIMIT_SOCKET_EVENTS",
    user_events: "LIMIT_USER_EVENTS",
    address_events: "LIMIT_ADDRESS_EVENTS",
    socket_rooms: "LIMIT_SOCKET_ROOMS",
    searches: "LIMIT_SEARCHES",
    answer_bytes: "LIMIT_ANSWER_BYTES",
    body_bytes: "LIMIT_BODY_BYTES",
    user_rooms: "LIMIT_USER_ROOMS",
    address_rooms: "LIMIT_ADDRESS_ROOMS",
    user_chats: "LIMIT_USER_CHATS",
    room_chats: "LIMIT_ROOM_CHATS",
    user_deliveries: "LIMIT_USER_DELIVERIES",
    user_rows: "LIMIT_USER_ROWS",
    pair_notices: "LIMIT_PAIR_NOTICES",
    pair_updates: "LIMIT_PAIR_UPDATES",
}
