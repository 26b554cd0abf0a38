//! Which web pages may call: CORS for HTTP and long-polling, and the same rule for WebSockets, which
//! browsers open across origins without asking.

use std::{net::IpAddr, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// How long a browser may remember a preflight.
const PREFLIGHT_AGE: Duration = Duration::from_secs(3600);

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
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
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
