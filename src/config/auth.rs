//! Access to the server: the addresses it listens on, the keys of tokens, open mode, web origins and trusted proxies.
//!
//! All of them are read in one file because open mode depends on the addresses and on the keys.

use std::net::{IpAddr, SocketAddr};

use http::HeaderValue;
use ipnet::IpNet;

use super::source::{Invalid, Source};
use crate::{
    domain::token::Keys,
    net::{
        client::TrustedProxies,
        origins::{Origins, parse_origin},
    },
};

/// The two addresses that the server listens on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Addresses {
    /// The address of the HTTP API.
    pub api: SocketAddr,
    /// The address of the Socket.IO gateway.
    pub gateway: SocketAddr,
}

impl Addresses {
    pub(super) fn read(source: &Source) -> Result<Self, Invalid> {
        let address = |name: &str| {
            source.parse(name, "an address and port, such as 127.0.0.1:3000", |text| text.parse().ok())
        };
        let (api, gateway): (SocketAddr, SocketAddr) = (address("API_ADDR")?, address("GATEWAY_ADDR")?);
        if api == gateway && api.port() != 0 {
            let reason = "must differ from API_ADDR: the gateway has a port of its own";
            return Err(Invalid::new("GATEWAY_ADDR", reason));
        }
        Ok(Self { api, gateway })
    }

    fn are_loopback(self) -> bool {
        self.api.ip().is_loopback() && self.gateway.ip().is_loopback()
    }
}

/// The rules by which callers are let in.
#[derive(Clone, Debug, PartialEq)]
pub struct Auth {
    /// The keys that tokens are signed with. `None`: open mode.
    pub keys: Option<Keys>,
    /// The web pages that may call.
    pub origins: Origins,
    /// The proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: TrustedProxies,
}

impl Auth {
    pub(super) fn read(source: &Source, addresses: Addresses) -> Result<Self, Invalid> {
        let keys = read_keys(source)?;
        let is_open_to_all = source.boolean("OPEN_MODE")?;
        check_open_mode(is_open_to_all, keys.is_some(), addresses)?;
        let listed = source.list("CORS_ORIGINS", listed_origin)?;
        let origins = match (is_open_to_all, &keys) {
            _ if !source.text("CORS_ORIGINS").is_empty() => Origins::Listed(listed),
            (true, _) => Origins::Any,
            (false, Some(_)) => Origins::Listed(Vec::new()),
            (false, None) => Origins::Localhost,
        };
        let trusted_proxies = TrustedProxies::new(source.list("TRUSTED_PROXIES", network)?);
        Ok(Self { keys, origins, trusted_proxies })
    }
}

fn read_keys(source: &Source) -> Result<Option<Keys>, Invalid> {
    const SECRET: &str = "JWT_SECRET";
    const FILE: &str = "JWT_PUBLIC_KEY_FILE";
    let mut keys = Keys::default();
    if let Some((secrets, _)) = source.value_or_file(SECRET)? {
        keys.add_secrets(&secrets).map_err(|reason| Invalid::new(SECRET, reason))?;
    }
    if let Some(text) = source.file(FILE)? {
        keys.add_public_keys(&text).map_err(|reason| Invalid::new(FILE, reason))?;
    }
    Ok(Some(keys).filter(|keys| !keys.is_empty()))
}

/// Checks that the server is open to others only if `OPEN_MODE=true` asks for it, and that there is no key then.
fn check_open_mode(is_open_to_all: bool, has_key: bool, addresses: Addresses) -> Result<(), Invalid> {
    let reason = match (is_open_to_all, has_key) {
        (true, true) => "with a key there is no open mode; unset it, or JWT_SECRET and JWT_PUBLIC_KEY_FILE",
        (false, false) if !addresses.are_loopback() => {
            "without authentication the server starts only on loopback addresses; set JWT_SECRET \
             or JWT_PUBLIC_KEY_FILE, or OPEN_MODE=true if everyone who reaches it may do everything"
        }
        _ => return Ok(()),
    };
    Err(Invalid::new("OPEN_MODE", reason))
}

fn listed_origin(text: &str) -> Result<HeaderValue, String> {
    parse_origin(text).ok_or_else(|| {
        format!("`{text}` is no origin such as https://map.example.org, capacitor://localhost or null")
    })
}

fn network(text: &str) -> Result<IpNet, String> {
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map_err(|_| format!("`{text}` is no address and no network such as 10.0.0.0/8"))
}
