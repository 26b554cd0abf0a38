//! Limits for sessions whose client is not identified yet: they hold at most a token.

use std::{net::IpAddr, num::NonZeroU32};

use crate::{
    config,
    domain::access::Payer,
    metrics::{Counter, Metrics},
    net::byte_budget::{ByteBudget, Reservation},
    service::limits::payer,
};

/// Largest body and largest message of a client that is not identified.
pub const UNIDENTIFIED_BYTES: usize = 128 * 1024;

/// Places for unidentified sessions, in all and of one address.
#[derive(Clone)]
pub struct UnidentifiedSessions {
    /// `None` if they are not limited.
    places: Option<ByteBudget<IpAddr>>,
    refused: Counter,
}

impl UnidentifiedSessions {
    pub fn new(limits: &config::Limits, metrics: &Metrics) -> Self {
        let places = limits.quotas.as_ref().map(|quotas| {
            let count = |count: NonZeroU32| count.get() as usize;
            ByteBudget::new(count(quotas.handshakes), count(quotas.address_handshakes))
        });
        if let Some(places) = places.clone() {
            let limit = places.total();
            metrics.queue("handshakes", limit, move || places.used());
        }
        Self { places, refused: metrics.limited("handshakes") }
    }

    /// Takes a place for a session that begins, until its client is identified. There is no place to take if they are
    /// not limited.
    ///
    /// # Errors
    /// [`TooMany`] if there is no free place.
    pub fn enter(&self, address: IpAddr) -> Result<Option<Reservation<IpAddr>>, TooMany> {
        let Some(places) = &self.places else { return Ok(None) };
        let Payer::Address(network) = payer(None, address) else { return Ok(None) };
        places.reserve(network, 1).map(Some).ok_or_else(|| {
            self.refused.inc();
            TooMany
        })
    }
}

/// Too many sessions are unidentified.
pub struct TooMany;
