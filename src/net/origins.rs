//! Which web pages may call: CORS for HTTP and long-polling, and the same rule for WebSockets, which
//! browsers open across origins without asking.

use std::{net::IpAddr, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header, uri::Authority};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// How long a browser may remember a preflight.
const PREFLIGHT_AGE: Duration = Duration::from_secs(3600);

/// Why a request is refused that is not for this server.
pub const NOT_FOR_US: &str = "in open mode on loopback requests must be for localhost or an address, not for another \
                              name; see OPEN_MODE";

/// The rule.
#[derive(Clone, Debug, PartialEq)]
pub enum Origins {
    /// Pages from this machine: open mode on loopback.
    Localhost,
    /// Any page: open mode that was asked for.
    Any,
    /// These, as browsers write them: `https://map.example.org`.
    Listed(Vec<HeaderValue>),
}

impl Origins {
    /// May a page of this origin call?
    pub fn allows(&self, origin: &HeaderValue) -> bool {
        match self {
            Self::Localhost => is_localhost(origin),
            Self::Any => true,
            Self::Listed(listed) => listed.contains(origin),
        }
    }

    /// May this request be answered? Apps, Postman and curl name no origin.
    pub fn admits(&self, headers: &HeaderMap) -> bool {
        headers.get(header::ORIGIN).is_none_or(|origin| self.allows(origin))
    }

    /// Is a request meant for this server? Without authentication on loopback, a page whose name was made to
    /// resolve to this machine (DNS rebinding) is of the same origin for its browser, and would be let do
    /// everything. So: addresses, and names that nobody elsewhere can make resolve.
    pub fn is_for_us(&self, headers: &HeaderMap) -> bool {
        let Self::Localhost = self else { return true };
        // More than one is for nobody (RFC 9112 §3.2).
        headers.get_all(header::HOST).iter().take(2).enumerate().all(|(nth, host)| {
            let authority = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok());
            nth == 0
                && authority.is_some_and(|authority| {
                    let host = authority.host().trim_end_matches('.');
                    !host.contains('.') || is_localhost_name(host) || address(host).is_some()
                })
        })
    }

    /// Answers preflights, and lets allowed pages read the answers.
    pub fn cors(&self) -> CorsLayer {
        let origins = self.clone();
        CorsLayer::new()
            .allow_origin(AllowOrigin::predicate(move |origin, _| origins.allows(origin)))
            .allow_credentials(true)
            .allow_methods([
                Method::GET,
                Method::HEAD,
                Method::POST,
                Method::PUT,
                Method::PATCH,
                Method::DELETE,
            ])
            .allow_headers([
                header::AUTHORIZATION,
                header::CONTENT_TYPE,
                header::IF_NONE_MATCH,
                HeaderName::from_static("x-request-id"),
                HeaderName::from_static("x-share-token"),
                HeaderName::from_static("x-share-password"),
            ])
            .expose_headers([
                header::ETAG,
                header::LOCATION,
                header::RETRY_AFTER,
                HeaderName::from_static("x-request-id"),
            ])
            .max_age(PREFLIGHT_AGE)
    }
}

fn is_localhost(origin: &HeaderValue) -> bool {
    let Some(uri) = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok()) else { return false };
    let host = uri.host().unwrap_or_default();
    is_localhost_name(host) || address(host).is_some_and(|address| address.is_loopback())
}

fn is_localhost_name(host: &str) -> bool {
    host.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("localhost"))
}

fn address(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_is_this_machine_and_nothing_that_looks_like_it() {
        let allows = |origin: &'static str| Origins::Localhost.allows(&HeaderValue::from_static(origin));
        for origin in [
            "http://localhost",
            "http://localhost:5173",
            "https://127.0.0.1:8080",
            "http://[::1]:3000",
            "http://map.localhost",
        ] {
            assert!(allows(origin), "{origin}");
        }
        for host in [
            "localhost:3000",
            "LocalHost",
            "127.0.0.1:3000",
            "[::1]:3000",
            "192.0.2.1",
            "x.localhost",
            "localhost.",
            "georoom",
        ] {
            let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static(host))]);
            assert!(Origins::Localhost.is_for_us(&headers), "{host}");
        }
        for host in
            ["evil.example", "localhost.evil.example:3000", "1.2.3.4.evil.example", "a@evil.example", ""]
        {
            let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static(host))]);
            assert!(!Origins::Localhost.is_for_us(&headers), "{host}");
            assert!(Origins::Any.is_for_us(&headers), "{host}");
        }
        for origin in [
            "null",
            "http://localhost.evil.example",
            "http://evil.example",
            "http://127.0.0.1.evil.example",
            "http://evil-localhost",
            "file://",
        ] {
            assert!(!allows(origin), "{origin}");
        }
    }
}
