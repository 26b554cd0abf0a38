//! Errors, the same for both doors: the table of stable codes and the error that carries one.
//!
//! There is no HTTP status here (that is `http/error.rs`) and no wire format: only the code, what to tell the
//! caller, and what only the log may know.

use std::{borrow::Cow, error::Error as StdError, fmt, time::Duration};

/// Declares the table: each code once, with its name on the wire and what it means.
macro_rules! codes {
    ($($(#[doc = $meaning:literal])+ $variant:ident = $name:literal,)+) => {
        /// A stable error code, the same in HTTP answers, acks and `exception` events.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[doc = $meaning])+ $variant,)+
        }

        impl Code {
            /// Every code, in the order of the table.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)+];

            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Code::$variant => $name,)+
                }
            }

            /// The meaning in one line for people.
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Code::$variant => concat!($($meaning),+).trim_ascii(),)+
                }
            }
        }
    };
}

codes! {
    /// The body is not JSON (RFC 8259): wrong syntax or encoding, a number beyond a double, nested over 127 deep.
    InvalidJson = "invalid_json",
    /// The body is over 1 MiB, or the location is larger than the database accepts at once.
    PayloadTooLarge = "payload_too_large",
    /// The body was not complete in time.
    RequestTimeout = "request_timeout",
    /// The `Content-Type` is not JSON, or the request has a `Content-Encoding`.
    UnsupportedMediaType = "unsupported_media_type",
    /// There is no such path, or no such location, member, share link or notification that the caller may see.
    NotFound = "not_found",
    /// The request needs a token or a share link.
    Unauthorized = "unauthorized",
    /// The token is not one of ours (its signature, form or claims are wrong), or it is not valid yet.
    InvalidToken = "invalid_token",
    /// The token has expired.
    TokenExpired = "token_expired",
    /// There is no such share link.
    InvalidShare = "invalid_share",
    /// The share link has ended.
    ShareExpired = "share_expired",
    /// The share link has a password, and none or a wrong one was given.
    InvalidSharePassword = "invalid_share_password",
    /// The caller may see the location but not do this to it, or this is only for users or for admins.
    Forbidden = "forbidden",
    /// An open server on loopback does not answer to this `Host`.
    MisdirectedRequest = "misdirected_request",
    /// The path exists, but not with this method.
    MethodNotAllowed = "method_not_allowed",
    /// A query parameter is unknown, given twice, or has a bad value.
    InvalidParameter = "invalid_parameter",
    /// The body is JSON but not an object of the form that the request takes, or it describes a location twice.
    InvalidBody = "invalid_body",
    /// An object has the same member twice.
    DuplicateMember = "duplicate_member",
    /// `id` is missing or not an integer from 1 to 2^53-1.
    InvalidId = "invalid_id",
    /// `id` in the body differs from the id in the path.
    IdMismatch = "id_mismatch",
    /// `userId` is not an integer from 0 to 2^53-1.
    InvalidUserId = "invalid_user_id",
    /// `expiresAt` of a share link is missing, is not a time, is past, or is over 30 days ahead.
    InvalidExpiresAt = "invalid_expires_at",
    /// The owner cannot be made a member, and the role of a member is viewer or editor.
    InvalidMember = "invalid_member",
    /// The location has 10,000 members already.
    TooManyMembers = "too_many_members",
    /// The location has 1,000 share links already that have not ended.
    TooManyShares = "too_many_shares",
    /// Neither `geometry` nor `properties` was given.
    NothingToUpdate = "nothing_to_update",
    /// `properties` is not an object.
    InvalidProperties = "invalid_properties",
    /// The location's properties would be over 64 KiB.
    PropertiesTooLarge = "properties_too_large",
    /// `geometry` is missing or null.
    GeometryRequired = "geometry_required",
    /// The geometry is not an object, lacks `type`, `coordinates` or `geometries`, or has a member of another object.
    InvalidGeometry = "invalid_geometry",
    /// `type` is none of the seven geometry types.
    UnknownGeometryType = "unknown_geometry_type",
    /// The coordinates are not nested as the geometry type requires.
    InvalidCoordinates = "invalid_coordinates",
    /// A position is not 2 or 3 numbers.
    InvalidPosition = "invalid_position",
    /// A longitude is outside -180 to 180.
    LongitudeOutOfRange = "longitude_out_of_range",
    /// A latitude is outside -90 to 90.
    LatitudeOutOfRange = "latitude_out_of_range",
    /// A geometry has no positions or no parts.
    EmptyGeometry = "empty_geometry",
    /// A line has fewer than 2 positions.
    LineTooShort = "line_too_short",
    /// A linear ring has fewer than 4 positions.
    RingTooShort = "ring_too_short",
    /// A linear ring's last position differs from its first.
    RingNotClosed = "ring_not_closed",
    /// The geometry has over 50,000 positions.
    TooManyPositions = "too_many_positions",
    /// The payload of the event does not have the form that the event takes.
    InvalidPayload = "invalid_payload",
    /// There is no event of this name.
    UnknownEvent = "unknown_event",
    /// The socket is not in that room.
    NotInRoom = "not_in_room",
    /// The message is over 16 KiB.
    MessageTooLarge = "message_too_large",
    /// The caller asks for too much, such as requests, events, sockets or rooms; try again a little later.
    RateLimited = "rate_limited",
    /// The database cannot be reached, or too many writes are waiting for it.
    StorageUnavailable = "storage_unavailable",
    /// The server failed; its log has the cause.
    Internal = "internal",
    /// A part of the server cannot go on; the server is about to be restarted.
    Unhealthy = "unhealthy",
}

impl Code {
    /// Whether it is about the credentials that a caller shows.
    pub const fn is_of_credentials(self) -> bool {
        matches!(
            self,
            Self::Unauthorized
                | Self::InvalidToken
                | Self::TokenExpired
                | Self::InvalidShare
                | Self::ShareExpired
                | Self::InvalidSharePassword
        )
    }
}

/// A refusal or a fault: the code, what to tell the caller, where in the body, and the hidden cause.
#[derive(Debug)]
pub struct Error {
    pub code: Code,
    pub detail: Cow<'static, str>,
    /// JSON Pointer (RFC 6901) to the smallest thing at fault in the body.
    pub pointer: Option<String>,
    /// The time after which the caller may try again, where that is known.
    pub retry_after: Option<Duration>,
    cause: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// A refusal of `code`, with one sentence for the caller.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into(), pointer: None, retry_after: None, cause: None }
    }

    pub fn at(mut self, pointer: impl Into<String>) -> Self {
        self.pointer = Some(pointer.into());
        self
    }

    /// Adds the time after which the caller may try again.
    pub fn after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self
    }

    /// Adds a cause, which only the log shows.
    pub fn because(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// A fault of the server: the caller learns nothing but that.
    pub fn internal(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(Code::Internal, "the server failed; the request may be tried again").because(cause)
    }

    /// A refusal because the caller has spent a budget.
    pub fn limited(detail: impl Into<Cow<'static, str>>, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(Code::RateLimited, detail) }
    }

    pub fn database_away() -> Self {
        Self::new(Code::StorageUnavailable, "the database cannot be reached; try again")
    }

    /// Whether something has failed, so that an operator should be told. A server that is only too busy has not
    /// failed: its error says when to try again, and has no cause.
    pub fn is_failure(&self) -> bool {
        let is_overload = self.retry_after.is_some() && self.cause.is_none();
        match self.code {
            Code::Internal | Code::Unhealthy => true,
            Code::StorageUnavailable => !is_overload,
            _ => false,
        }
    }

    pub fn no_location(id: impl fmt::Display) -> Self {
        Self::new(Code::NotFound, format!("there is no location {id}"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.detail)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

/// The result of a constructor of the domain.
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_failed_is_a_failure() {
        let busy = || Error::new(Code::StorageUnavailable, "too many");
        for (error, is_failure) in [
            (Error::internal("broken"), true),
            (Error::database_away(), true),
            (busy().after(Duration::from_secs(1)), false),
            (busy().after(Duration::from_secs(1)).because("broken"), true),
            (Error::limited("too many", Duration::from_secs(1)), false),
            (Error::no_location(1), false),
        ] {
            assert_eq!(error.is_failure(), is_failure, "{error}");
        }
    }
}
