//! The memory that requests and answers hold while a client sends or reads, with a bound on the sum.
//!
//! Each body and each answer is bounded by itself. Their number is not, so the bytes of all of them are counted
//! here, with a share for each user or address that shrinks as the budget fills ([`ByteBudget::fair`]). Who finds no
//! room is refused at once and nobody waits: with `rate_limited` where it is the caller's own share, else with
//! `storage_unavailable`.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    config::Quotas,
    domain::{
        access::Payer,
        error::{Code, Error, Result},
    },
    metrics::{Counter, Metrics},
    net::byte_budget::{self, ByteBudget},
};

/// The bytes for all callers, as a multiple of what one may hold.
const SHARES: usize = 4;
/// The bytes that each user or address may hold even while others hold all there is. They are few, because a thousand
/// of them may.
const GUARANTEED: usize = 32 * 1024;
/// The bytes for all callers where no share is configured.
const ALL: usize = 64 * 1024 * 1024;
/// The time after which a refused caller may try again. Nobody knows when there will be room.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// A shorter answer is neither counted nor refused: the connection that sends it takes as much.
const SMALL_ANSWER: usize = 16 * 1024;

/// Bytes that are counted for a caller until this is dropped.
pub type Reservation = byte_budget::Reservation<Payer>;

/// Every budget of bytes that HTTP draws on.
#[derive(Debug)]
pub struct Memory {
    /// Answers with locations, until the connection has sent them.
    pub answers: Budget,
    /// Bodies of which a part has come.
    pub bodies: Budget,
}

/// A budget of bytes, and how it refuses.
#[derive(Debug)]
pub struct Budget {
    bytes: ByteBudget<Payer>,
    /// The name of what there is too much of.
    what: &'static str,
    limited: Counter,
}

impl Memory {
    /// Creates the budgets with the configured shares. Without limits the first to come is the first served, and nobody
    /// is told of a limit.
    pub fn start(quotas: Option<&Quotas>, metrics: &Metrics) -> Self {
        let budget = |share: Option<NonZeroU32>, [name, help, what, limit]: [&'static str; 4]| {
            let bytes = match share.map(|share| share.get() as usize) {
                Some(share) => fair(share.saturating_mul(SHARES), share),
                None => ByteBudget::new(ALL, usize::MAX),
            };
            let watched = bytes.clone();
            metrics.watch_bytes(name, help, move || watched.used());
            Budget { bytes, what, limited: metrics.limited(limit) }
        };
        let help = "Bytes of answers that clients have not taken yet";
        let answers = ["answers_unread", help, "answers that are not read yet", "answer_bytes"];
        let help = "Bytes of incomplete request bodies";
        let bodies = ["bodies_incomplete", help, "bodies that have not come whole yet", "body_bytes"];
        Self {
            answers: budget(quotas.map(|quotas| quotas.answer_bytes), answers),
            bodies: budget(quotas.map(|quotas| quotas.body_bytes), bodies),
        }
    }
}

/// A budget that no few callers can fill, see [`ByteBudget::fair`].
pub fn fair(total: usize, share: usize) -> ByteBudget<Payer> {
    ByteBudget::fair(total, share, GUARANTEED)
}

impl Budget {
    /// Counts bytes for a caller.
    ///
    /// # Errors
    /// `rate_limited`, `storage_unavailable`.
    pub fn reserve(&self, payer: Payer, bytes: usize) -> Result<Reservation> {
        self.bytes.reserve(payer, bytes).ok_or_else(|| self.refusal(payer, bytes))
    }

    /// Counts more bytes for the same caller.
    ///
    /// # Errors
    /// `rate_limited`, `storage_unavailable`.
    pub fn grow(&self, payer: Payer, held: &mut Reservation, bytes: usize) -> Result<()> {
        held.grow(bytes).then_some(()).ok_or_else(|| self.refusal(payer, bytes))
    }

    /// Checks that the caller has anything left, before something is done whose answer cannot be refused afterwards.
    ///
    /// # Errors
    /// `rate_limited`, `storage_unavailable`.
    pub fn check(&self, payer: Payer) -> Result<()> {
        match self.bytes.has_room(payer, 1) {
            true => Ok(()),
            false => Err(self.refusal(payer, 1)),
        }
    }

    /// Counts an answer until it has been sent, unless it is small.
    ///
    /// # Errors
    /// `rate_limited`, `storage_unavailable`.
    pub fn hold(&self, payer: Payer, text: String) -> Result<Bytes> {
        match text.len() {
            0..SMALL_ANSWER => Ok(text.into()),
            len => Ok(counted(text, self.reserve(payer, len)?)),
        }
    }

    /// Counts the largest piece of a longer answer, unless it is small.
    ///
    /// # Errors
    /// `rate_limited`, `storage_unavailable`.
    pub(super) fn reserve_piece(&self, payer: Payer, bytes: usize) -> Result<Reservation> {
        self.reserve(payer, if bytes < SMALL_ANSWER { 0 } else { bytes })
    }

    /// Counts an answer that must be given, because what it tells of is done. It may go beyond the caller's share, so
    /// that [`Budget::check`] refuses the caller's next request.
    pub fn hold_anyway(&self, payer: Payer, text: String) -> Bytes {
        match text.len() {
            0..SMALL_ANSWER => text.into(),
            len => counted(text, self.bytes.record(payer, len)),
        }
    }

    /// Counts one piece of a longer answer as far as `held` does not cover it.
    pub(super) fn hold_piece(&self, payer: Payer, text: String, held: &Arc<Reservation>) -> Bytes {
        if text.len() < SMALL_ANSWER && held.bytes() == 0 {
            return text.into();
        }
        let more = self.bytes.record(payer, text.len().saturating_sub(held.bytes()));
        counted(text, (held.clone(), more))
    }

    fn refusal(&self, payer: Payer, bytes: usize) -> Error {
        self.limited.inc();
        match self.bytes.exceeds_share(payer, bytes) {
            true => {
                let detail = match payer {
                    Payer::User(_) => format!("too many {} of this user", self.what),
                    Payer::Address(_) => format!("too many {} at this address", self.what),
                };
                Error::limited(detail, RETRY_AFTER)
            }
            false => {
                let detail = format!("too many {} of all callers; try again", self.what);
                Error::new(Code::StorageUnavailable, detail).after(RETRY_AFTER)
            }
        }
    }
}

/// Bytes that keep something until they are sent.
fn counted(text: String, until_sent: impl Send + Sync + 'static) -> Bytes {
    struct Counted<T>(String, T);
    impl<T> AsRef<[u8]> for Counted<T> {
        fn as_ref(&self) -> &[u8] {
            self.0.as_bytes()
        }
    }
    Bytes::from_owner(Counted(text, until_sent))
}
