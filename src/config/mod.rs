//! Settings: one table of them, read once from flags and environment, checked before anything starts.
//!
//! Secrets never come by flag and are never printed, not even in the error about them.

use std::{
    collections::HashMap,
    fmt::{self, Display},
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    ops::RangeInclusive,
    str::FromStr,
    time::Duration,
};

use http::HeaderValue;
use ipnet::IpNet;
use url::Url;

use crate::{
    domain::token::Keys,
    net::{
        client::TrustedProxies,
        origins::{Origins, parse_origin},
    },
    telemetry::LogFormat,
};

/// Far more than anybody can want; keeps sums of versions far from overflow.
const MAX_HISTORY_VERSIONS: u64 = 1_000_000_000;
/// Far more than a server has.
const MAX_COUNT: u32 = 100_000_000;
/// The writer and the readers need a connection each; MySQL itself accepts no more than the upper bound.
const DATABASE_CONNECTIONS: RangeInclusive<u32> = 2..=100_000;
/// Less would not take every event, more not be kept waiting for.
const MESSAGE_BYTES: RangeInclusive<usize> = 32 * 1024..=16 * 1024 * 1024;
/// It holds for answers too, and what did not fit into one the library may lose when a transport changes.
const POLL_BYTES: RangeInclusive<usize> = 1024 * 1024..=64 * 1024 * 1024;

/// One setting: an environment variable and, secrets apart, a flag.
#[derive(Debug)]
pub struct Setting {
    /// The environment variable; as a flag `--in-kebab-case`.
    pub name: &'static str,
    /// Shown by `--help`; empty where there is none.
    pub default: &'static str,
    /// One line for `--help`.
    pub help: &'static str,
    /// By environment or `…_FILE` only, never by flag.
    pub secret: bool,
    /// Named by the documentation, refused by this version.
    pub missing: bool,
}

const fn setting(name: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting { name, default, help, secret: false, missing: false }
}

const fn missing(name: &'static str, help: &'static str) -> Setting {
    Setting { missing: true, ..setting(name, "", help) }
}

/// Every setting, in the order of `--help`.
pub const SETTINGS: &[Setting] = &[
    setting(
        "DATABASE_URL",
        "sqlite://data/georoom.db?mode=rwc",
        "mysql://user:password@host:3306/database, or sqlite://file?mode=rwc. With a password only by environment or DATABASE_URL_FILE",
    ),
    setting(
        "DATABASE_CONNECTIONS",
        "17",
        "Connections to MySQL at most, 2 or more; one is always the writer's. Below what the account or the server allows",
    ),
    setting("API_ADDR", "127.0.0.1:3000", "Where the HTTP API listens"),
    setting("GATEWAY_ADDR", "127.0.0.1:3030", "Where the Socket.IO gateway listens (path /socket.io)"),
    Setting {
        secret: true,
        ..setting(
            "JWT_SECRET",
            "",
            "Secret that tokens are signed with (HS256), 32 bytes or more; several, newest first, separated by spaces or lines",
        )
    },
    setting(
        "JWT_PUBLIC_KEY_FILE",
        "",
        "File of PEM public keys that tokens are signed with: RSA (RS256), EC P-256 (ES256), Ed25519 (EdDSA)",
    ),
    setting(
        "OPEN_MODE",
        "",
        "true: serve without authentication on addresses other than loopback; not beside a key",
    ),
    setting(
        "CORS_ORIGINS",
        "",
        "Origins of web pages that may call, separated by commas, such as https://map.example.org, capacitor://localhost or null; unset: none with a key; without one localhost, or any with OPEN_MODE=true",
    ),
    setting(
        "TRUSTED_PROXIES",
        "127.0.0.0/8,::1/128",
        "Addresses or networks whose X-Forwarded-For is believed, separated by commas",
    ),
    setting("PING_INTERVAL", "25s", "Engine.IO heartbeat: how often a socket is pinged"),
    setting("PING_TIMEOUT", "20s", "Engine.IO heartbeat: how long its answer may take"),
    setting("HISTORY_VERSIONS", "1000", "How many versions of each location are kept, the newest included"),
    setting(
        "HISTORY_AGE",
        "",
        "How long a version is kept, such as 30d; the newest always is; unset: no limit",
    ),
    setting(
        "NOTIFICATION_AGE",
        "90d",
        "How long a notification is kept, read or not, also when its location is gone",
    ),
    setting("NOTIFICATION_COUNT", "1000", "How many notifications of each user are kept, the newest"),
    setting("RATE_LIMITS", "on", "on; off: none of the settings LIMIT_… counts"),
    setting(
        "LIMIT_USER_REQUESTS",
        "200",
        "HTTP requests and handshakes a second with tokens of one user; five times as many at once",
    ),
    setting(
        "LIMIT_ADDRESS_REQUESTS",
        "1000",
        "Requests a second from one address by share links, also handshakes, or in open mode; five times as many at once",
    ),
    setting(
        "LIMIT_ADDRESS_REFUSALS",
        "20",
        "HTTP requests and handshakes a second from one address that show nothing valid; five times as many at once",
    ),
    setting(
        "LIMIT_SHARE_PASSWORDS",
        "10",
        "Passwords tried a minute for one share link from one address, those that were right before not counted; from all addresses twenty times as many",
    ),
    setting("LIMIT_SOCKETS", "100000", "Sockets connected at once"),
    setting("LIMIT_USER_SOCKETS", "1000", "Sockets connected at once with tokens of one user"),
    setting(
        "LIMIT_ADDRESS_SOCKETS",
        "10000",
        "Sockets connected at once from one address without a token: by share links or in open mode",
    ),
    setting("LIMIT_HANDSHAKES", "4000", "Sessions at once whose client is not known yet"),
    setting(
        "LIMIT_ADDRESS_HANDSHAKES",
        "1000",
        "Sessions at once from one address whose client is not known yet",
    ),
    setting("LIMIT_SOCKET_EVENTS", "50", "Events a second from one socket; twenty times as many at once"),
    setting(
        "LIMIT_USER_EVENTS",
        "200",
        "Events a second from all sockets of one user; twenty times as many at once",
    ),
    setting(
        "LIMIT_ADDRESS_EVENTS",
        "1000",
        "Events a second from all sockets of one address without a token; twenty times as many at once",
    ),
    setting("LIMIT_SOCKET_ROOMS", "1000", "Rooms that one socket may be in"),
    setting(
        "LIMIT_SEARCHES",
        "16",
        "Lists by bbox or near, or far from the first page, that one user or address may be waiting for at once",
    ),
    setting(
        "LIMIT_ANSWER_BYTES",
        "16777216",
        "Bytes of answers of 16 KiB and more that one user or address may leave unread at once; all together four times as many",
    ),
    setting(
        "LIMIT_BODY_BYTES",
        "4194304",
        "Bytes of bodies that have not come whole from one user or address at once; all together four times as many",
    ),
    setting(
        "LIMIT_USER_ROOMS",
        "20000",
        "Rooms that all sockets of one user may be in, counted for each socket",
    ),
    setting(
        "LIMIT_ADDRESS_ROOMS",
        "100000",
        "Rooms that all sockets of one address without a token may be in, counted for each socket",
    ),
    setting(
        "LIMIT_USER_CHATS",
        "5",
        "Messages (chat) a second from one user, eight times as many at once; from an address without a token five times as many",
    ),
    setting(
        "LIMIT_ROOM_CHATS",
        "50",
        "Messages (chat) a second to one room from all its members; four times as many at once",
    ),
    setting(
        "LIMIT_USER_DELIVERIES",
        "20000",
        "What one user may have sent to others a second: one for each socket reached and each 16 KiB begun; ten times as many at once; for an address without a token five times as many",
    ),
    setting(
        "LIMIT_USER_ROWS",
        "20000",
        "Rows that may be read a second for one user's lists of members and joins of rooms, and for large Features; ten times as many at once; for an address without a token five times as many",
    ),
    setting(
        "LIMIT_PAIR_NOTICES",
        "6",
        "Changes a minute that one user may make to what another is told of: memberships, roles, notifications; ten at once; admins any number",
    ),
    setting(
        "LIMIT_PAIR_UPDATES",
        "2",
        "Changed locations a second that one user may have sent whole into another's list, beyond that only their ids; ten times as many at once; admins any number",
    ),
    setting("MAX_MESSAGE_BYTES", "131072", "Bytes of one message from a socket, and of its WebSocket frames"),
    setting("MAX_POLL_BYTES", "1048576", "Bytes of one long-polling request, which may hold many messages"),
    setting(
        "HEADER_TIMEOUT",
        "30s",
        "How long a request's headers may take; also how long an HTTP connection may idle",
    ),
    setting(
        "BODY_TIMEOUT",
        "30s",
        "How long a request's body may take, and an answer of the API may go unread",
    ),
    setting("HANDSHAKE_TIMEOUT", "10s", "How long a session may take to become a Socket.IO socket"),
    setting("LOG_FORMAT", "text", "text or json"),
    setting("RUST_LOG", "info", "What is logged: error, warn, info, debug, or target=level,…"),
    Setting { secret: true, ..missing("REDIS_URL", "This process is one node of many") },
    missing("ADMIN_UI_USERNAME", "Socket.IO Admin UI: who may log in"),
    Setting {
        secret: true,
        ..missing("ADMIN_UI_PASSWORD_HASH", "Socket.IO Admin UI: bcrypt hash of the password")
    },
    missing("ADMIN_UI_MODE", "Socket.IO Admin UI: development or production"),
    missing("ADMIN_UI_READONLY", "Socket.IO Admin UI: true forbids its commands"),
];

/// A setting that stops the start: which, and why.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {why}")]
pub struct Invalid {
    name: String,
    why: String,
}

impl Invalid {
    /// Names the setting and what is wrong with it.
    pub fn new(name: impl Into<String>, why: impl Into<String>) -> Self {
        Self { name: name.into(), why: why.into() }
    }
}

/// A value that no log or error shows.
#[derive(Clone, PartialEq)]
pub struct Secret(String);

impl Secret {
    /// Where it is needed.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Engine.IO's heartbeat.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heartbeat {
    /// Between pings.
    pub interval: Duration,
    /// Until a missing pong ends the socket.
    pub timeout: Duration,
}

/// How much history is kept of a location: both are limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct History {
    /// The newest so many versions, at least 1.
    pub versions: u64,
    /// Versions not older than this, and the newest.
    pub age: Option<Duration>,
}

/// How many notifications are kept: both are limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Notifications {
    /// Not older than this.
    pub age: Duration,
    /// Of one user.
    pub count: u64,
}

/// How much one caller may ask for, in so much time.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// `None`: as much as they like.
    pub counts: Option<Counts>,
    /// Of one message from a socket.
    pub message_bytes: usize,
    /// Of one long-polling request.
    pub poll_bytes: usize,
    /// For a request's headers, and between requests.
    pub header_timeout: Duration,
    /// For a request's body.
    pub body_timeout: Duration,
    /// From a connection to a socket.
    pub handshake_timeout: Duration,
}

/// Limits of what comes too often, or is there too often.
#[derive(Clone, Debug, PartialEq)]
pub struct Counts {
    /// A second, with tokens of one user.
    pub user_requests: NonZeroU32,
    /// A second, from one address, without a token.
    pub address_requests: NonZeroU32,
    /// A second, from one address, with nothing valid.
    pub address_refusals: NonZeroU32,
    /// A minute, for one share link.
    pub share_passwords: NonZeroU32,
    /// At once.
    pub sockets: NonZeroU32,
    /// At once, with tokens of one user.
    pub user_sockets: NonZeroU32,
    /// At once, from one address, without a token.
    pub address_sockets: NonZeroU32,
    /// At once, before their client is known.
    pub handshakes: NonZeroU32,
    /// The same, from one address.
    pub address_handshakes: NonZeroU32,
    /// A second, from one socket.
    pub socket_events: NonZeroU32,
    /// A second, from all sockets of one user.
    pub user_events: NonZeroU32,
    /// A second, from all sockets of one address without a token.
    pub address_events: NonZeroU32,
    /// At once, for one socket.
    pub socket_rooms: NonZeroU32,
    /// Searches that one caller may be waiting for at once.
    pub searches: NonZeroU32,
    /// Bytes of answers that one caller may leave unread.
    pub answer_bytes: NonZeroU32,
    /// Bytes of half-sent bodies of one caller.
    pub body_bytes: NonZeroU32,
    /// At once, for all sockets of one user.
    pub user_rooms: NonZeroU32,
    /// At once, for all sockets of one address without a token.
    pub address_rooms: NonZeroU32,
    /// Messages a second, from one user.
    pub user_chats: NonZeroU32,
    /// Messages a second, to one room.
    pub room_chats: NonZeroU32,
    /// Sockets reached, or 16 KiB sent to one, a second, by what one user does.
    pub user_deliveries: NonZeroU32,
    /// Rows read a second for one user, beyond one for each request.
    pub user_rows: NonZeroU32,
    /// A minute, by one user to one other.
    pub pair_notices: NonZeroU32,
    /// A second, from one user to one other.
    pub pair_updates: NonZeroU32,
}

/// Everything the server needs to know, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// May hold a password.
    pub database_url: Secret,
    /// The largest number of connections to MySQL.
    pub database_connections: u32,
    /// The HTTP API.
    pub api_addr: SocketAddr,
    /// The Socket.IO gateway.
    pub gateway_addr: SocketAddr,
    /// Whose tokens count; none: open mode.
    pub keys: Option<Keys>,
    /// Web pages that may call.
    pub origins: Origins,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: TrustedProxies,
    /// Of every socket.
    pub heartbeat: Heartbeat,
    /// Of every location.
    pub history: History,
    /// Of every user.
    pub notifications: Notifications,
    /// Of every caller.
    pub limits: Limits,
    /// Text or JSON.
    pub log_format: LogFormat,
    /// A filter as tracing-subscriber reads it.
    pub log_filter: String,
}

/// Where a value was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Source {
    /// On the command line, for every process of the machine to see.
    Flag,
    /// In the environment, or in a file.
    Environment,
}

/// A value and where it was found.
pub type Found = (Source, String);

impl Config {
    /// Checks every setting; `find` looks one up, empty values being none.
    ///
    /// # Errors
    /// The first setting that is wrong, or is not built yet.
    pub fn load(find: impl Fn(&str) -> Result<Option<Found>, Invalid>) -> Result<Self, Invalid> {
        let mut values: HashMap<String, Found> = HashMap::new();
        let files = SETTINGS.iter().map(|setting| format!("{}_FILE", setting.name));
        for name in SETTINGS.iter().map(|setting| setting.name.to_owned()).chain(files) {
            if let Some(found) = find(&name)?.filter(|(_, value)| !value.trim().is_empty()) {
                values.insert(name, found);
            }
        }
        let find = |name: &str| values.get(name).cloned();
        for setting in SETTINGS.iter().filter(|setting| setting.missing) {
            let file = format!("{}_FILE", setting.name);
            if find(setting.name).is_some() || (setting.secret && find(&file).is_some()) {
                return Err(Invalid::new(
                    setting.name,
                    "is set, but this version cannot do that yet; unset it to start",
                ));
            }
        }
        let get = |name: &str| {
            let setting =
                SETTINGS.iter().find(|setting| setting.name == name).expect("a setting of the table");
            find(name).map_or_else(|| setting.default.to_owned(), |(_, value)| value.trim().to_owned())
        };

        let addr = |name: &str| {
            get(name)
                .parse::<SocketAddr>()
                .map_err(|_| Invalid::new(name, "must be an address and port, such as 127.0.0.1:3000"))
        };
        let (api_addr, gateway_addr) = (addr("API_ADDR")?, addr("GATEWAY_ADDR")?);
        if api_addr == gateway_addr && api_addr.port() != 0 {
            return Err(Invalid::new(
                "GATEWAY_ADDR",
                "must differ from API_ADDR: the gateway has a port of its own",
            ));
        }

        let keys = keys(find)?;
        let open_mode = boolean("OPEN_MODE", &get("OPEN_MODE"))?;
        let loopback = api_addr.ip().is_loopback() && gateway_addr.ip().is_loopback();
        if open_mode && keys.is_some() {
            let why = "with a key there is no open mode; unset it, or JWT_SECRET and JWT_PUBLIC_KEY_FILE";
            return Err(Invalid::new("OPEN_MODE", why));
        }
        if !open_mode && !loopback && keys.is_none() {
            let why = "without authentication the server starts only on loopback addresses; set JWT_SECRET \
                       or JWT_PUBLIC_KEY_FILE, or OPEN_MODE=true if everyone who reaches it may do everything";
            return Err(Invalid::new("OPEN_MODE", why));
        }
        let origins = match get("CORS_ORIGINS") {
            list if !list.is_empty() => Origins::Listed(parse_list("CORS_ORIGINS", &list, origin)?),
            _ if open_mode => Origins::Any,
            _ if keys.is_some() => Origins::Listed(Vec::new()),
            _ => Origins::Localhost,
        };
        let proxies = parse_list("TRUSTED_PROXIES", &get("TRUSTED_PROXIES"), |text| {
            text.parse::<IpNet>()
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
                .map_err(|_| format!("`{text}` is no address and no network such as 10.0.0.0/8"))
        })?;

        let duration = |name: &str| {
            let value = humantime::parse_duration(&get(name)).ok();
            value
                .filter(|value| (Duration::from_millis(10)..=Duration::from_secs(3600)).contains(value))
                .ok_or_else(|| Invalid::new(name, "must be a time from 10ms to 1h, such as 25s"))
        };
        let heartbeat =
            Heartbeat { interval: duration("PING_INTERVAL")?, timeout: duration("PING_TIMEOUT")? };

        let versions = get("HISTORY_VERSIONS").parse().ok();
        let versions = versions.filter(|versions| (1..=MAX_HISTORY_VERSIONS).contains(versions));
        let versions = versions.ok_or_else(|| {
            Invalid::new("HISTORY_VERSIONS", format!("must be an integer from 1 to {MAX_HISTORY_VERSIONS}"))
        })?;
        let age = |name: &str| {
            let age = humantime::parse_duration(&get(name)).ok();
            age.filter(|age| *age >= Duration::from_secs(1))
        };
        let kept = match get("HISTORY_AGE").as_str() {
            "" => None,
            _ => Some(age("HISTORY_AGE").ok_or_else(|| {
                Invalid::new("HISTORY_AGE", "must be a time of at least 1s, such as 30d; unset: no limit")
            })?),
        };
        let history = History { versions, age: kept };
        let kept = age("NOTIFICATION_AGE")
            .ok_or_else(|| Invalid::new("NOTIFICATION_AGE", "must be a time of at least 1s, such as 90d"))?;

        let count = |name: &str| {
            let value = get(name).parse::<NonZeroU32>().ok().filter(|value| value.get() <= MAX_COUNT);
            value.ok_or_else(|| Invalid::new(name, format!("must be an integer from 1 to {MAX_COUNT}")))
        };
        let notifications = Notifications { age: kept, count: u64::from(count("NOTIFICATION_COUNT")?.get()) };
        let bytes = |name: &str, range: RangeInclusive<usize>| {
            in_range(name, &get(name), "a number of bytes", &range)
        };
        let counts = Counts {
            user_requests: count("LIMIT_USER_REQUESTS")?,
            address_requests: count("LIMIT_ADDRESS_REQUESTS")?,
            address_refusals: count("LIMIT_ADDRESS_REFUSALS")?,
            share_passwords: count("LIMIT_SHARE_PASSWORDS")?,
            sockets: count("LIMIT_SOCKETS")?,
            user_sockets: count("LIMIT_USER_SOCKETS")?,
            address_sockets: count("LIMIT_ADDRESS_SOCKETS")?,
            handshakes: count("LIMIT_HANDSHAKES")?,
            address_handshakes: count("LIMIT_ADDRESS_HANDSHAKES")?,
            socket_events: count("LIMIT_SOCKET_EVENTS")?,
            user_events: count("LIMIT_USER_EVENTS")?,
            address_events: count("LIMIT_ADDRESS_EVENTS")?,
            socket_rooms: count("LIMIT_SOCKET_ROOMS")?,
            searches: count("LIMIT_SEARCHES")?,
            answer_bytes: count("LIMIT_ANSWER_BYTES")?,
            body_bytes: count("LIMIT_BODY_BYTES")?,
            user_rooms: count("LIMIT_USER_ROOMS")?,
            address_rooms: count("LIMIT_ADDRESS_ROOMS")?,
            user_chats: count("LIMIT_USER_CHATS")?,
            room_chats: count("LIMIT_ROOM_CHATS")?,
            user_deliveries: count("LIMIT_USER_DELIVERIES")?,
            user_rows: count("LIMIT_USER_ROWS")?,
            pair_notices: count("LIMIT_PAIR_NOTICES")?,
            pair_updates: count("LIMIT_PAIR_UPDATES")?,
        };
        let counts = match get("RATE_LIMITS").as_str() {
            "on" => Some(counts),
            "off" => None,
            _ => return Err(Invalid::new("RATE_LIMITS", "must be on or off")),
        };
        let limits = Limits {
            counts,
            message_bytes: bytes("MAX_MESSAGE_BYTES", MESSAGE_BYTES)?,
            poll_bytes: bytes("MAX_POLL_BYTES", POLL_BYTES)?,
            header_timeout: duration("HEADER_TIMEOUT")?,
            body_timeout: duration("BODY_TIMEOUT")?,
            handshake_timeout: duration("HANDSHAKE_TIMEOUT")?,
        };
        let log_format = match get("LOG_FORMAT").as_str() {
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            _ => return Err(Invalid::new("LOG_FORMAT", "must be text or json")),
        };
        let log_filter = get("RUST_LOG");
        crate::telemetry::check_filter(&log_filter).map_err(|why| Invalid::new("RUST_LOG", why))?;

        let connections = get("DATABASE_CONNECTIONS");
        let database_connections =
            in_range("DATABASE_CONNECTIONS", &connections, "an integer", &DATABASE_CONNECTIONS)?;

        Ok(Self {
            database_url: database_url(find)?,
            database_connections,
            api_addr,
            gateway_addr,
            keys,
            origins,
            trusted_proxies: TrustedProxies::new(proxies),
            heartbeat,
            history,
            notifications,
            limits,
            log_format,
            log_filter,
        })
    }
}

/// A secret that is set, or stands in the file named by `…_FILE`.
fn secret(name: &str, find: impl Fn(&str) -> Option<Found>) -> Result<Option<Found>, Invalid> {
    let file = format!("{name}_FILE");
    match (find(name), find(&file)) {
        (Some(_), Some(_)) => Err(Invalid::new(file, format!("is set beside {name}; set one of them"))),
        (found, None) => Ok(found),
        (None, Some((_, path))) => Ok(Some((Source::Environment, read(&file, &path)?))),
    }
}

/// The text of a file, without the byte order mark that Windows editors write before it.
fn read(name: &str, path: &str) -> Result<String, Invalid> {
    let text = std::fs::read_to_string(path).map_err(|e| Invalid::new(name, e.to_string()))?;
    Ok(text.trim_start_matches('\u{feff}').to_owned())
}

fn keys(find: impl Fn(&str) -> Option<Found>) -> Result<Option<Keys>, Invalid> {
    const SECRET: &str = "JWT_SECRET";
    const FILE: &str = "JWT_PUBLIC_KEY_FILE";
    let mut keys = Keys::default();
    if let Some((_, secrets)) = secret(SECRET, &find)? {
        keys.add_secrets(&secrets).map_err(|why| Invalid::new(SECRET, why))?;
    }
    if let Some((_, path)) = find(FILE) {
        keys.add_public_keys(&read(FILE, &path)?).map_err(|why| Invalid::new(FILE, why))?;
    }
    Ok(Some(keys).filter(|keys| !keys.is_empty()))
}

fn database_url(find: impl Fn(&str) -> Option<Found>) -> Result<Secret, Invalid> {
    const NAME: &str = "DATABASE_URL";
    let (source, url) =
        secret(NAME, find)?.unwrap_or_else(|| (Source::Environment, SETTINGS[0].default.to_owned()));
    let url = url.trim();
    if url.starts_with("mysql:") {
        // Looked at here because the driver's message about a bad URL repeats it, password and all.
        let parsed = mysql_url(url).map_err(|why| Invalid::new(NAME, why))?;
        if source == Source::Flag && parsed.password().is_some() {
            let why = "has a password, and every process of the machine can read a flag; \
                       use the environment or DATABASE_URL_FILE";
            return Err(Invalid::new(NAME, why));
        }
    } else if !url.starts_with("sqlite:") {
        return Err(Invalid::new(NAME, "must start with mysql:// or sqlite:"));
    }
    Ok(Secret(url.to_owned()))
}

/// Parses a URL that must name a host and a database, or returns what is wrong with it. A character that is not encoded in
/// a password would end it, and the rest would be taken for another host.
fn mysql_url(text: &str) -> Result<Url, String> {
    const ENCODE: &str = "in a password write @ : / # ? % as %40 %3A %2F %23 %3F %25";
    const FORM: &str = "mysql://user:password@host:3306/database";
    let url = Url::parse(text).map_err(|e| format!("is no URL such as {FORM}: {e}; {ENCODE}"))?;
    let after_host = [Some(url.path()), url.query(), url.fragment()];
    if url.fragment().is_some() || after_host.into_iter().flatten().any(|part| part.contains('@')) {
        return Err(format!("has an @ or # behind its host; {ENCODE}"));
    }
    if [url.username(), url.password().unwrap_or_default()].into_iter().any(has_bare_percent) {
        return Err(format!("has a % that encodes nothing in its user or password; {ENCODE}"));
    }
    let Some(host) = url.host_str().filter(|host| !host.is_empty()) else {
        return Err(format!("names no host; write {FORM}"));
    };
    match url.path().trim_start_matches('/') {
        "" => Err(format!("names no database at {host}; write it behind the host: {FORM}")),
        path if path.contains('/') => Err(format!("names more than one database at {host}; write {FORM}")),
        _ => Ok(url),
    }
}

/// Is there a percent sign without two hexadecimal digits behind it?
fn has_bare_percent(text: &str) -> bool {
    let is_encoded = |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|b| b.is_ascii_hexdigit());
    text.split('%').skip(1).any(|rest| !is_encoded(rest))
}

/// Reads a number that a range bounds; `what` names it in the error.
fn in_range<T: FromStr + PartialOrd + Display>(
    name: &str,
    value: &str,
    what: &str,
    range: &RangeInclusive<T>,
) -> Result<T, Invalid> {
    value.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
        Invalid::new(name, format!("must be {what} from {} to {}", range.start(), range.end()))
    })
}

fn boolean(name: &str, value: &str) -> Result<bool, Invalid> {
    match value {
        "true" => Ok(true),
        "" | "false" => Ok(false),
        _ => Err(Invalid::new(name, "must be true or false")),
    }
}

fn parse_list<T>(
    name: &str,
    list: &str,
    item: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, Invalid> {
    let items = list.split(',').map(str::trim).filter(|text| !text.is_empty());
    items.map(|text| item(text).map_err(|why| Invalid::new(name, why))).collect()
}

fn origin(text: &str) -> Result<HeaderValue, String> {
    let why =
        || format!("`{text}` is no origin such as https://map.example.org, capacitor://localhost or null");
    parse_origin(text).ok_or_else(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_of_mysql_names_a_host_and_a_database_and_its_password_is_encoded() {
        for good in [
            "mysql://root@127.0.0.1/georoom",
            "mysql://u:p%40%3A%2F%23%3F%25@db.example:3307/georoom?ssl-mode=REQUIRED",
            "mysql://u:a:b@db.example/georoom",
            "mysql://u:a@b@db.example/georoom",
            "mysql://[::1]:3306/georoom",
        ] {
            assert!(mysql_url(good).is_ok(), "{good}: {:?}", mysql_url(good));
        }
        for (bad, says) in [
            ("mysql://u:hunter2/x@db.example/georoom", "%2F"),
            ("mysql://u:12/hunter2@db.example/georoom", "%2F"),
            ("mysql://u:hunter2#x@db.example/georoom", "%23"),
            ("mysql://u:12#hunter2@db.example/georoom", "%23"),
            ("mysql://u:12?hunter2@db.example/georoom", "%3F"),
            ("mysql://u:hunter2%@db.example/georoom", "%25"),
            ("mysql://u:%hunter2@db.example/georoom", "%25"),
            ("mysql://u:hunter2@db.example", "no database at db.example"),
            ("mysql://u:hunter2@db.example:3306/", "no database at db.example"),
            ("mysql://u:hunter2@db.example/a/b", "more than one"),
            ("mysql:///georoom", "no host"),
            ("mysql:georoom", "no host"),
        ] {
            let why = mysql_url(bad).unwrap_err();
            assert!(why.contains(says) && !why.contains("hunter2"), "{bad}: {why}");
        }
    }
}
