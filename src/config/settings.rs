//! The table of settings: names, defaults and the lines of `--help`.
//!
//! What each value means is checked in the files beside this one. The tables in README.md say the same;
//! `tests/documents.rs` compares them.

/// One setting: an environment variable and, secrets apart, a flag.
#[derive(Debug)]
pub struct Setting {
    /// The environment variable. The flag is the same in kebab case: `--api-addr`.
    pub name: &'static str,
    /// The default that `--help` shows; empty if there is none.
    pub default: &'static str,
    /// One line for `--help`.
    pub help: &'static str,
    /// Whether the value comes only by environment or from the file that `…_FILE` names, never by flag.
    pub is_secret: bool,
}

const fn setting(name: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting { name, default, help, is_secret: false }
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
        is_secret: true,
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
];

/// Names of settings that the documentation reserves. Setting one of them, or its `…_FILE`, stops the start: whoever
/// relies on it must not believe that it works.
pub const RESERVED: [&str; 5] =
    ["REDIS_URL", "ADMIN_UI_USERNAME", "ADMIN_UI_PASSWORD_HASH", "ADMIN_UI_MODE", "ADMIN_UI_READONLY"];
