//! The table of settings: names, defaults and the lines of `--help`.
//!
//! The files beside this one check what each value means. The tables in README.md say the same;
//! `tests/documents.rs` compares them.

/// A setting: an environment variable and, secrets apart, a flag.
#[derive(Debug)]
pub struct Setting {
    /// The environment variable. The flag is the same in kebab case: `--api-addr`.
    pub name: &'static str,
    /// The default that `--help` shows; empty if there is none.
    pub default: &'static str,
    /// The line of `--help`.
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
        "The database: mysql://user:password@host:3306/database or sqlite://file?mode=rwc. A URL with a password comes only by environment or DATABASE_URL_FILE",
    ),
    setting(
        "DATABASE_CONNECTIONS",
        "17",
        "The largest number of connections to MySQL, 2 or more; one is always the writer's. Set it below the limits of the account and the server",
    ),
    setting("API_ADDR", "127.0.0.1:3000", "Address and port of the HTTP API"),
    setting("GATEWAY_ADDR", "127.0.0.1:3030", "Address and port of the Socket.IO gateway (path /socket.io)"),
    Setting {
        is_secret: true,
        ..setting(
            "JWT_SECRET",
            "",
            "Secret with which tokens are signed (HS256), 32 bytes or more; several are separated by spaces or lines, newest first",
        )
    },
    setting(
        "JWT_PUBLIC_KEY_FILE",
        "",
        "File of PEM public keys that verify tokens: RSA (RS256), EC P-256 (ES256), Ed25519 (EdDSA)",
    ),
    setting(
        "OPEN_MODE",
        "",
        "true: serve without authentication on addresses other than loopback; not allowed beside a key",
    ),
    setting(
        "CORS_ORIGINS",
        "",
        "Origins of web pages that may call, separated by commas, such as https://map.example.org, capacitor://localhost or null. If unset: none with a key; without a key localhost, or any with OPEN_MODE=true",
    ),
    setting(
        "TRUSTED_PROXIES",
        "127.0.0.0/8,::1/128",
        "Addresses and networks whose X-Forwarded-For is believed, separated by commas",
    ),
    setting("PING_INTERVAL", "25s", "Engine.IO heartbeat: the time between pings to a socket"),
    setting("PING_TIMEOUT", "20s", "Engine.IO heartbeat: the time that a pong may take"),
    setting("HISTORY_VERSIONS", "1000", "How many versions of each location are kept, the newest included"),
    setting(
        "HISTORY_AGE",
        "",
        "How long a version is kept, such as 30d; the newest version always is. If unset: no limit",
    ),
    setting(
        "NOTIFICATION_AGE",
        "90d",
        "How long a notification is kept, read or not, also after its location was deleted",
    ),
    setting("NOTIFICATION_COUNT", "1000", "How many notifications of each user are kept"),
    setting("RATE_LIMITS", "on", "on, or off: all settings LIMIT_… are ignored"),
    setting(
        "LIMIT_USER_REQUESTS",
        "200",
        "HTTP requests and handshakes a second with tokens of one user; five times as many at once",
    ),
    setting(
        "LIMIT_ADDRESS_REQUESTS",
        "1000",
        "HTTP requests and handshakes a second from one address by share links or in open mode; five times as many at once",
    ),
    setting(
        "LIMIT_ADDRESS_REFUSALS",
        "20",
        "HTTP requests and handshakes a second from one address that show nothing valid or ask for a path that does not exist; five times as many at once",
    ),
    setting(
        "LIMIT_SHARE_PASSWORDS",
        "10",
        "Passwords tried a minute for one share link from one address, and twenty times as many from all addresses. A password that was right before does not count",
    ),
    setting("LIMIT_SOCKETS", "100000", "Sockets connected at once"),
    setting("LIMIT_USER_SOCKETS", "1000", "Sockets connected at once with tokens of one user"),
    setting(
        "LIMIT_ADDRESS_SOCKETS",
        "10000",
        "Sockets connected at once from one address by share links or in open mode",
    ),
    setting("LIMIT_HANDSHAKES", "4000", "Engine.IO sessions at once that have not connected a socket yet"),
    setting(
        "LIMIT_ADDRESS_HANDSHAKES",
        "1000",
        "Engine.IO sessions at once from one address that have not connected a socket yet",
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
        "LIMIT_USER_ROOMS",
        "20000",
        "Rooms that all sockets of one user may be in; a room counts once for each socket in it",
    ),
    setting(
        "LIMIT_ADDRESS_ROOMS",
        "100000",
        "Rooms that all sockets of one address without a token may be in; a room counts once for each socket in it",
    ),
    setting(
        "LIMIT_USER_CHATS",
        "5",
        "Messages (chat) a second from one user; eight times as many at once. An address without a token may send five times as many",
    ),
    setting(
        "LIMIT_ROOM_CHATS",
        "50",
        "Messages (chat) a second to one room from all its members; four times as many at once",
    ),
    setting(
        "LIMIT_USER_DELIVERIES",
        "20000",
        "Deliveries to others a second that one user may cause: one for each socket reached and each 16 KiB begun; ten times as many at once. An address without a token may cause five times as many",
    ),
    setting(
        "LIMIT_USER_ROWS",
        "20000",
        "Rows a second that may be read for one user's lists of members, joins of rooms and large Features; ten times as many at once. An address without a token may have five times as many read",
    ),
    setting(
        "LIMIT_PAIR_NOTICES",
        "6",
        "Changes a minute with which one user may notify another (memberships, roles and others); ten at once. Admins have no such limit",
    ),
    setting(
        "LIMIT_PAIR_UPDATES",
        "2",
        "Changed locations a second that one user may have sent whole to another's list; ten times as many at once. Beyond it only their ids are sent. Admins have no such limit",
    ),
    setting(
        "LIMIT_SEARCHES",
        "16",
        "Lists by bbox or near, or far from the first page, that one user or address may be waiting for at once",
    ),
    setting(
        "LIMIT_ANSWER_BYTES",
        "16777216",
        "Bytes of answers of 16 KiB and more that one user or address may leave unread at once; all callers together four times as many",
    ),
    setting(
        "LIMIT_BODY_BYTES",
        "4194304",
        "Bytes of incomplete request bodies that one user or address may have under way at once; all callers together four times as many",
    ),
    setting(
        "MAX_MESSAGE_BYTES",
        "131072",
        "Largest message from a socket and largest frame of its WebSocket, in bytes",
    ),
    setting("MAX_POLL_BYTES", "1048576", "Largest long-polling request, in bytes; it may hold many messages"),
    setting(
        "HEADER_TIMEOUT",
        "30s",
        "Time that a request's headers may take, and that an HTTP connection may be idle",
    ),
    setting(
        "BODY_TIMEOUT",
        "30s",
        "Time that a request's body may take, and that an answer of the API may go unread",
    ),
    setting("HANDSHAKE_TIMEOUT", "10s", "Time from the start of a session to a connected Socket.IO socket"),
    setting("LOG_FORMAT", "text", "Format of the log: text or json"),
    setting("RUST_LOG", "info", "Level of the log (error, warn, info, debug), or a filter target=level,…"),
];

/// Names of settings that the documentation reserves. Setting one of them, or its `…_FILE`, stops the start: whoever
/// relies on it must not believe that it works.
pub const RESERVED: [&str; 5] =
    ["REDIS_URL", "ADMIN_UI_USERNAME", "ADMIN_UI_PASSWORD_HASH", "ADMIN_UI_MODE", "ADMIN_UI_READONLY"];
