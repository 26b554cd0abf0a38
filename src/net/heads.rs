//! A bound on request heads that have not come whole, of all connections and of one address.
//!
//! HTTP reads a head into a buffer of the connection, up to [`MAX_HEAD`], before anybody knows who is calling. Apart
//! from `connection.rs`, which only says what it has read.

use std::{net::IpAddr, sync::Arc};

use parking_lot::Mutex;

use super::{
    byte_budget::{ByteBudget, Reservation},
    client::network,
};

/// A request line and its headers, at most.
pub const MAX_HEAD: usize = 128 * 1024;
/// Bytes of a head that count for nobody: honest ones rarely have more.
const FREE: usize = 8 * 1024;
/// Bytes beyond that of all connections, and of those from one address.
const TOTAL: usize = 16 * 1024 * 1024;
const SHARE: usize = 4 * 1024 * 1024;

/// The budget of all heads that have not come whole. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Heads(ByteBudget<IpAddr>);

/// What has come of the head that a connection is reading. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Head(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    heads: Heads,
    from: IpAddr,
    /// Written when something is read, and when a request begins and is answered.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The head has come: what is read now is a body, or waits for the next request.
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

    /// The bytes that are held now.
    pub fn used(&self) -> usize {
        self.0.used()
    }
}

impl Head {
    /// Counts bytes that have come. `false`: there is no room for them.
    #[must_use]
    pub fn record_read(&self, bytes: usize) -> bool {
        let State { is_complete, bytes: so_far, held } = &mut *self.0.state.lock();
        if *is_complete {
            return true;
        }
        let before = so_far.saturating_sub(FREE);
        // More than a head has at most is what still comes of a body that was refused, and lies nowhere.
        *so_far = (*so_far + bytes).min(MAX_HEAD);
        let more = so_far.saturating_sub(FREE) - before;
        match held {
            _ if more == 0 => true,
            Some(held) => held.grow(more),
            None => {
                *held = self.0.heads.0.reserve(self.0.from, more);
                held.is_some()
            }
        }
    }

    /// The head has come whole.
    pub fn complete(&self) {
        *self.0.state.lock() = State { is_complete: true, ..State::default() };
    }

    /// The request is answered: what is read from here on belongs to the next.
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
    fn what_has_come_of_a_head_counts_until_it_is_whole() {
        let heads = Heads::default();
        let head = head(&heads, "192.0.2.1");
        assert!(head.record_read(FREE) && heads.used() == 0);
        assert!(head.record_read(100) && heads.used() == 100);
        head.complete();
        // A body.
        assert!(head.record_read(1024 * 1024) && heads.used() == 0);
        head.begin();
        assert!(head.record_read(FREE + 7) && heads.used() == 7);
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
        assert_eq!(held.len(), SHARE / (LARGE - FREE));
        assert!(read("2001:db8::2").is_none(), "of the same network");
        assert!(read("2001:db8:0:1::1").is_some());
        assert!(head(&heads, "2001:db8::1").record_read(FREE));
        drop(held);
        assert!(read("2001:db8::2").is_some());
    }
}
