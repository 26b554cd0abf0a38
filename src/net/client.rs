//! The address of the client that sent a request: the peer's own, or the one that trusted proxies report.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use http::{HeaderMap, HeaderName, Request};
use ipnet::IpNet;

use super::accept::Peer;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address of the client that sent a request, in the request's extensions. [`TrustedProxies::note`] puts it there.
#[derive(Clone, Copy, Debug)]
pub struct Client(pub IpAddr);

impl Client {
    /// Returns the address; all zeros if nothing has noted it.
    pub fn address(client: Option<&Self>) -> IpAddr {
        client.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |client| client.0)
    }
}

/// Proxies whose `X-Forwarded-For` is believed. Cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub struct TrustedProxies(Arc<[IpNet]>);

impl TrustedProxies {
    /// Trusts the proxies in any of `networks`.
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        Self(networks.into_iter().collect())
    }

    /// Puts the client that sent a request into its extensions.
    pub fn note<B>(&self, request: &mut Request<B>) {
        if let Some(peer) = request.extensions().get::<Peer>() {
            let client = self.client(peer.addr.ip(), request.headers());
            request.extensions_mut().insert(Client(client));
        }
    }

    /// Finds the address nearest to the caller that is not itself a trusted proxy. The header is read from the right,
    /// because the caller may have made up everything further left.
    fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        // Read as bytes, because proxies append to a value of the caller, which need not be text.
        let hops = headers.get_all(X_FORWARDED_FOR).iter().rev();
        for hop in hops.flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b',')) {
            if !self.trusts(client) {
                break;
            }
            let Some(address) = address(hop) else { break };
            client = address.to_canonical();
        }
        client
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// Parses an address, which some proxies write with a port.
fn address(hop: &[u8]) -> Option<IpAddr> {
    let hop = str::from_utf8(hop).ok()?.trim();
    let with_port = || hop.parse::<SocketAddr>().ok().map(|address| address.ip());
    let in_brackets = || hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    hop.parse().ok().or_else(with_port).or_else(in_brackets)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_caller_cannot_choose_its_address() {
        let proxies = TrustedProxies::new(["127.0.0.0/8".parse().unwrap(), "10.1.0.0/16".parse().unwrap()]);
        let client = |peer: &str, forwarded: &'static [&'static str]| {
            let mut headers = HeaderMap::new();
            for value in forwarded {
                headers.append(X_FORWARDED_FOR, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            proxies.client(peer.parse().unwrap(), &headers).to_string()
        };
        assert_eq!(client("192.0.2.1", &["198.51.100.9"]), "192.0.2.1");
        assert_eq!(client("127.0.0.1", &["203.0.113.5, 198.51.100.9"]), "198.51.100.9");
        assert_eq!(client("::ffff:127.0.0.1", &["203.0.113.5", "198.51.100.9, 10.1.2.3"]), "198.51.100.9");
        assert_eq!(client("127.0.0.1", &["é, 198.51.100.9"]), "198.51.100.9");
        assert_eq!(client("127.0.0.1", &["198.51.100.9:5555"]), "198.51.100.9");
        assert_eq!(client("127.0.0.1", &["[2001:db8::1]:5555"]), "2001:db8::1");
        assert_eq!(client("127.0.0.1", &["[2001:db8::1]"]), "2001:db8::1");
        assert_eq!(client("127.0.0.1", &["nonsense"]), "127.0.0.1");
        assert_eq!(client("127.0.0.1", &[]), "127.0.0.1");
    }
}
