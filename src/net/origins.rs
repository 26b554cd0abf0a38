//! The web pages that may call: CORS for HTTP and long-polling, and in open mode the same rule for WebSockets, which
//! browsers open across origins without asking.
//!
//! An origin is checked only where a browser would let a page in by itself. No cookie is read here, so with a key
//! every caller has to show a token or a share link, which a foreign page has not got; and apps send origins of their
//! own: the server's URL, `file://`, `capacitor://localhost`.

use std::{net::IpAddr, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header, uri::Authority};
use tower_http::cors::{AllowCredentials, AllowHeaders, AllowOrigin, CorsLayer};

/// The time for which a browser may remember a preflight.
const PREFLIGHT_AGE: Duration = Duration::from_secs(3600);

/// The text for a request that [`Origins::is_for_us`] refuses.
pub const NOT_FOR_US: &str = "in open mode on loopback requests must be for localhost or an address, not for another \
                              name; see OPEN_MODE";

/// The pages that may call.
#[derive(Clone, Debug, PartialEq)]
pub enum Origins {
    /// Pages from this machine: the rule of open mode on loopback.
    Localhost,
    /// Any page: the rule of open mode that was asked for.
    Any,
    /// Pages of these origins, as browsers write them: `https://map.example.org`.
    Listed(Vec<HeaderValue>),
}

impl Origins {
    /// May a page of this origin call, with a request that has these headers?
    fn allows(&self, origin: &HeaderValue, headers: &HeaderMap) -> bool {
        let is_listed = match self {
            Self::Localhost => is_localhost(origin),
            Self::Any => true,
            Self::Listed(listed) => listed.contains(origin),
        };
        is_listed || is_own(origin, headers)
    }

    /// May a request with these headers be answered in open mode? Postman, curl and most apps name no origin.
    pub fn admits(&self, headers: &HeaderMap) -> bool {
        headers.get(header::ORIGIN).is_none_or(|origin| self.allows(origin, headers))
    }

    /// Says whether a request is meant for this server.
    ///
    /// A page could do everything in open mode on loopback once its name resolves to this machine (DNS rebinding),
    /// because its browser then takes both for the same origin. So `Host` must be an address or a name that nobody
    /// elsewhere can make resolve. Elsewhere any name is right.
    pub fn is_for_us(&self, headers: &HeaderMap) -> bool {
        if *self != Self::Localhost {
            return true;
        }
        let mut hosts = headers.get_all(header::HOST).iter();
        match (hosts.next(), hosts.next()) {
            (Some(host), None) => is_local_host(host),
            // HTTP/1.0, which no browser speaks.
            (None, _) => true,
            // Two hosts are refused (RFC 9112 §3.2).
            (Some(_), Some(_)) => false,
        }
    }

    /// Answers preflights, and lets allowed pages read the answers.
    pub fn cors(&self) -> CorsLayer {
        let (origins, the_same) = (self.clone(), self.clone());
        CorsLayer::new()
            .allow_origin(AllowOrigin::predicate(move |origin, parts| origins.allows(origin, &parts.headers)))
            .allow_credentials(AllowCredentials::predicate(move |origin, parts| {
                the_same.allows(origin, &parts.headers)
            }))
            .allow_methods([
                Method::GET,
                Method::HEAD,
                Method::POST,
                Method::PUT,
                Method::PATCH,
                Method::DELETE,
            ])
            // What libraries add (`traceparent`, `x-requested-with`) harms nobody: the origin is what is checked.
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers([
                header::ETAG,
                header::LOCATION,
                header::RETRY_AFTER,
                HeaderName::from_static("x-request-id"),
            ])
            .max_age(PREFLIGHT_AGE)
    }
}

/// Parses a serialised origin (RFC 6454 §6.2): `null`, or `scheme://host[:port]` also with a scheme that only apps
/// have. Returns it as browsers write it.
pub fn parse_origin(text: &str) -> Option<HeaderValue> {
    if text.eq_ignore_ascii_case("null") {
        return Some(HeaderValue::from_static("null"));
    }
    let (scheme, authority) = text.split_once("://")?;
    let (scheme, authority) = (scheme.to_ascii_lowercase(), authority.trim_end_matches('/'));
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme.chars().all(|char| char.is_ascii_alphanumeric() || "+-.".contains(char));
    // Browsers write a host that is not ASCII in Punycode.
    let is_authority = authority.chars().all(|char| char.is_ascii_graphic() && !"/?#*@".contains(char));
    if !is_scheme || !is_authority {
        return None;
    }
    let origin = match default_port(&scheme) {
        Some(port) => {
            let authority: Authority = authority.to_ascii_lowercase().parse().ok()?;
            let host = authority.host();
            let is_port_right = authority.as_str() == host || authority.port_u16().is_some();
            if host.is_empty() || !is_port_right {
                return None;
            }
            format!("{scheme}://{}", authority.as_str().strip_suffix(port).unwrap_or(authority.as_str()))
        }
        // Other schemes have no default port, and `file://` has no host.
        None => format!("{scheme}://{authority}"),
    };
    HeaderValue::from_str(&origin).ok()
}

/// Returns the port that origins of this scheme leave out; `None` if it is no scheme of the web.
fn default_port(scheme: &str) -> Option<&'static str> {
    match scheme {
        "http" | "ws" => Some(":80"),
        "https" | "wss" => Some(":443"),
        _ => None,
    }
}

/// Says whether an origin is the server itself, under the name that the request has for it. Some clients write the
/// scheme of their WebSocket. Any scheme is right, because a proxy may have ended TLS.
fn is_own(origin: &HeaderValue, headers: &HeaderMap) -> bool {
    let own = || {
        let (scheme, authority) = origin.to_str().ok()?.split_once("://")?;
        let port = default_port(scheme)?;
        let host = headers.get(header::HOST)?.to_str().ok()?;
        let without_port = |authority| str::strip_suffix(authority, port).unwrap_or(authority);
        Some(without_port(authority).eq_ignore_ascii_case(without_port(host)))
    };
    own() == Some(true)
}

fn is_localhost(origin: &HeaderValue) -> bool {
    let Some(uri) = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok()) else { return false };
    let host = uri.host().unwrap_or_default();
    is_localhost_name(host) || address(host).is_some_and(|address| address.is_loopback())
}

/// Can a `Host` header not be the name of a page elsewhere?
fn is_local_host(host: &HeaderValue) -> bool {
    let authority = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok());
    authority.is_some_and(|authority| {
        let host = authority.host().trim_end_matches('.');
        !host.contains('.') || is_localhost_name(host) || address(host).is_some()
    })
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
        let allows = |origin: &'static str| {
            Origins::Localhost.allows(&HeaderValue::from_static(origin), &HeaderMap::new())
        };
        for origin in [
            "http://localhost",
            "http://localhost:5173",
            "https://127.0.0.1:8080",
            "http://[::1]:3000",
            "http://map.localhost",
        ] {
            assert!(allows(origin), "{origin}");
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

    #[test]
    fn on_loopback_a_host_is_an_address_or_a_name_of_this_machine() {
        let is_for_us = |origins: &Origins, hosts: &[&'static str]| {
            let hosts = hosts.iter().map(|host| (header::HOST, HeaderValue::from_static(host)));
            let mut headers = HeaderMap::new();
            headers.extend(hosts);
            origins.is_for_us(&headers)
        };
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
            assert!(is_for_us(&Origins::Localhost, &[host]), "{host}");
        }
        for host in
            ["evil.example", "localhost.evil.example:3000", "1.2.3.4.evil.example", "a@evil.example", ""]
        {
            assert!(!is_for_us(&Origins::Localhost, &[host]), "{host}");
            assert!(is_for_us(&Origins::Any, &[host]), "{host}");
        }
        assert!(is_for_us(&Origins::Localhost, &[]));
    }

    #[test]
    fn any_serialised_origin_may_be_listed() {
        for (text, expected) in [
            ("https://map.example.org", "https://map.example.org"),
            ("https://Map.example.org:443/", "https://map.example.org"),
            ("http://map.example.org:80", "http://map.example.org"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("capacitor://localhost", "capacitor://localhost"),
            ("ionic://localhost", "ionic://localhost"),
            ("Tauri://localhost", "tauri://localhost"),
            ("chrome-extension://abcdefghijklmnop", "chrome-extension://abcdefghijklmnop"),
            ("app://obsidian.md", "app://obsidian.md"),
            ("file://", "file://"),
            ("file:///", "file://"),
            ("null", "null"),
        ] {
            assert_eq!(parse_origin(text).as_ref().and_then(|it| it.to_str().ok()), Some(expected), "{text}");
        }
        for text in [
            "",
            "*",
            "map.example.org",
            "https://",
            "http:///",
            "https://*.example.org",
            "https://map.example.org/path",
            "https://map.example.org?x",
            "https://user@map.example.org",
            "https://map example.org",
            "https://bücher.example",
            "://localhost",
            "1a://localhost",
            "https://:443",
            "https://[",
            "https://a:b",
            "https://map.example.org:99999",
            "nothing",
        ] {
            assert_eq!(parse_origin(text), None, "{text}");
        }
    }

    #[test]
    fn the_servers_own_origin_is_allowed_under_the_name_it_is_called_by() {
        let listed = Origins::Listed(Vec::new());
        for (origin, host, is_own) in [
            ("http://geo.example:3030", "geo.example:3030", true),
            ("ws://geo.example:3030", "geo.example:3030", true),
            ("https://geo.example", "geo.example", true),
            ("https://geo.example", "GEO.example:443", true),
            ("wss://geo.example:443", "geo.example", true),
            ("http://geo.example", "geo.example:3030", false),
            ("http://geo.example.evil.example", "geo.example", false),
            ("http://evil.example", "geo.example", false),
            ("file://geo.example", "geo.example", false),
            ("null", "null", false),
            ("geo.example", "geo.example", false),
        ] {
            let headers = HeaderMap::from_iter([
                (header::ORIGIN, HeaderValue::from_static(origin)),
                (header::HOST, HeaderValue::from_static(host)),
            ]);
            assert_eq!(listed.admits(&headers), is_own, "{origin} at {host}");
        }
    }
}
