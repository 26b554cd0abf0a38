//! The reasons for which this side ends a connection.

/// The reason why this side has ended a connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum EndReason {
    /// The client took no bytes for too long, or confirmed none of those it was sent, or it polled again without having
    /// read the last answer.
    Unread,
    /// The TCP connection ended with the answer to a poll on it, which the client may not have read.
    AnswerLost,
    /// More was waiting for the client, or had come of a message, than its caller may have.
    TooMuchWaits,
    /// The client was promised every version, and was too slow for that.
    StalledInReplay,
    /// The client had not read data that it may no longer see.
    Withdrawn,
    /// The client had not read what it was sent before its token ended.
    TokenEnded,
    /// The client has violated the protocol.
    Malformed,
}
