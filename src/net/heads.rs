//! A bound on request heads that have not come whole, of all connections and of one address.
//!
//! HTTP reads a head into a buffer of the connection, up to [`MAX_HEAD`] bytes, before the caller is known.
//! `connection.rs` reports the bytes it has read, `accept.rs` when a head is whole.

use std::{net::IpAddr, sync::Arc};

use parking_lot::Mutex;

use super::{
    address::network,
    byte_budget::{ByteBudget, Reservation},
};

/// The largest size of a request line with its headers.
pub const MAX_HEAD: usize = 128 * 1024;
/// Bytes of each head that are not counted. Honest heads rarely have more.
const UNCOUNTED: usize = 8 * 1024;
/// The bound on counted bytes of all connections.
const TOTAL: usize = 16 * 1024 * 1024;
/// The bound on counted bytes of the connections from one address.
const SHARE: usize = 4 * 1024 * 1024;

/// The budget of all heads that have not come whole. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Heads(ByteBudget<IpAddr>);

/// The head that a connection is reading. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Head(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    heads: Heads,
    from: IpAddr,
    /// The connection writes it when it has read bytes, and when a request begins and is answered.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether the head has come whole. Then the bytes that are read belong to a body, or wait for the next request.
    is_complete: bool,
    bytes: usize,
    held: Option<Reservation<IpAddr>>,
}

impl Default for Heads {
    fn default() -> Self {
        Self(ByteBudget::new(TOTAL, SHARE))
    }
}

impl Heads {
    /// Begins to follow the heads of a connection from an address.
    pub fn follow(&self, from: IpAddr) -> Head {
        Head(Arc::new(Inner {
            heads: self.clone(),
            from: network(from.to_canonical()),
            state: Mutex::default(),
        }))
    }

    /// Returns the number of bytes that are counted now.
    pub fn used(&self) -> usize {
        self.0.used()
    }
}

impl Head {
    /// Counts bytes that have come. Returns `false` if there is no room for them.
    #[must_use]
    pub fn record_read(&self, bytes: usize) -> bool {
        let State { is_complete, bytes: so_far, held } = &mut *self.0.state.lock();
        if *is_complete {
            return true;
        }
        let before = so_far.saturating_sub(UNCOUNTED);
        // Bytes beyond the size of a head belong to a refused body, which is dropped as it comes.
        *so_far = (*so_far + bytes).min(MAX_HEAD);
        let more = so_far.saturating_sub(UNCOUNTED) - before;
        match held {
            _ if more == 0 => true,
            Some(held) => held.grow(more),
            None => {
                *held = self.0.heads.0.reserve(self.0.from, more);
                held.is_some()
            }
        }
    }

    /// Says that the head has come whole.
    pub fn complete(&self) {
        *self.0.state.lock() = State { is_complete: true, ..State::default() };
    }

    /// Says that the request is answered: the bytes that are read from here on belong to the next.
    pub fn begin(&self) {
        *self.0.state.lock() = State::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(heads: &Heads, from: &str) -> Head {
        heads.follow(from.parse().unwrap())
    }

    #[test]
    fn a_head_counts_until_it_is_whole() {
        let heads = Heads::default();
        let head = head(&heads, "192.0.2.1");
        assert!(head.record_read(UNCOUNTED) && heads.used() == 0);
        assert!(head.record_read(100) && heads.used() == 100);
        head.complete();
        // These bytes belong to the body.
        assert!(head.record_read(1024 * 1024) && heads.used() == 0);
        head.begin();
        assert!(head.record_read(UNCOUNTED + 7) && heads.used() == 7);
        drop(head);
        assert_eq!(heads.used(), 0);
    }

    #[test]
    fn an_address_has_a_share_of_which_small_heads_take_nothing() {
        const LARGE: usize = 64 * 1024;
        let heads = Heads::default();
        let read = |from: &str| {
            let head = head(&heads, from);
            head.record_read(LARGE).then_some(head)
        };
        let held: Vec<_> = std::iter::from_fn(|| read("2001:db8::1")).collect();
        assert_eq!(held.len(), SHARE / (LARGE - UNCOUNTED));
        assert!(read("2001:db8::2").is_none(), "of the same network");
        assert!(read("2001:db8:0:1::1").is_some());
        assert!(head(&heads, "2001:db8::1").record_read(UNCOUNTED));
        drop(held);
        assert!(read("2001:db8::2").is_some());
    }
}
