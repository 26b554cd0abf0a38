//! The part of an address that stands for one subscriber, for budgets of addresses.

use std::net::{IpAddr, Ipv6Addr};

/// Leading bits of an IPv6 address that belong to one subscriber at least.
const SUBSCRIBER_BITS: u32 = 64;

/// Returns the network of one subscriber. A subscriber has very many addresses of IPv6, but one of IPv4.
pub fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !(u128::MAX >> SUBSCRIBER_BITS)).into()
        }
        v4 => v4,
    }
}
