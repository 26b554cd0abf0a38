//! Settings as tables: defaults, good values, and bad values with the exact text of their errors.

use std::{collections::HashMap, ffi::OsString, fs, os::unix::ffi::OsStringExt};

use super::*;
use crate::net::origins::Origins;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn load(values: &[(&str, &str)]) -> Result<Config, String> {
    let values: HashMap<_, _> = values.iter().copied().collect();
    let config = Config::from_variables(|name| Some((*values.get(name)?).to_owned()));
    config.map_err(|error| error.to_string())
}

fn good(values: &[(&str, &str)]) -> Config {
    load(values).unwrap_or_else(|error| panic!("{values:?}: {error}"))
}

#[test]
fn the_defaults_are_those_of_the_documents() {
    let documented = [
        ("DATABASE_URL", "sqlite://data/georoom.db?mode=rwc"),
        ("DATABASE_CONNECTIONS", "17"),
        ("API_ADDR", "127.0.0.1:3000"),
        ("GATEWAY_ADDR", "127.0.0.1:3030"),
        ("JWT_SECRET", ""),
        ("JWT_PUBLIC_KEY_FILE", ""),
        ("OPEN_MODE", ""),
        ("CORS_ORIGINS", ""),
        ("TRUSTED_PROXIES", "127.0.0.0/8,::1/128"),
        ("PING_INTERVAL", "25s"),
        ("PING_TIMEOUT", "20s"),
        ("HISTORY_VERSIONS", "1000"),
        ("HISTORY_AGE", ""),
        ("NOTIFICATION_AGE", "90d"),
        ("NOTIFICATION_COUNT", "1000"),
        ("RATE_LIMITS", "on"),
        ("LOG_FORMAT", "text"),
        ("RUST_LOG", "info"),
    ];
    for (name, default) in documented {
        let setting = SETTINGS.iter().find(|setting| setting.name == name).expect(name);
        assert_eq!(setting.default, default, "{name}");
    }
    let config = good(&[]);
    assert_eq!(config.database.url.expose(), "sqlite://data/georoom.db?mode=rwc");
    assert_eq!(config.database.connections, 17);
    assert_eq!(config.addresses.api, "127.0.0.1:3000".parse().unwrap());
    assert_eq!(config.addresses.gateway, "127.0.0.1:3030".parse().unwrap());
    assert_eq!((config.auth.keys, config.auth.origins), (None, Origins::Localhost));
    let seconds = Duration::from_secs;
    assert_eq!(config.heartbeat, Heartbeat { interval: seconds(25), timeout: seconds(20) });
    assert_eq!(config.history, History { versions: 1000, age: None });
    let age = seconds(90 * 24 * 3600);
    assert_eq!(config.notifications, Notifications { age, count: 1000 });
    assert_eq!(config.log, Log { format: LogFormat::Text, filter: "info".to_owned() });
    let limits = config.limits;
    assert_eq!((limits.message_bytes, limits.poll_bytes), (131_072, 1_048_576));
    assert_eq!((limits.header_timeout, limits.body_timeout), (seconds(30), seconds(30)));
    let quotas = limits.quotas.expect("limits are on");
    assert_eq!((quotas.user_requests.get(), quotas.pair_updates.get()), (200, 2));
}

#[test]
fn every_default_can_be_given_as_a_value_and_an_empty_value_counts_as_none() {
    let defaults = Vec::from_iter(SETTINGS.iter().map(|setting| (setting.name, setting.default)));
    let empty = Vec::from_iter(SETTINGS.iter().map(|setting| (setting.name, " ")));
    let reserved = RESERVED.map(|name| (name, ""));
    assert_eq!(good(&defaults), good(&[]));
    assert_eq!(good(&[empty, reserved.to_vec()].concat()), good(&[]));
}

#[test]
fn good_values_are_taken_to_their_ends() {
    for (name, values) in [
        ("DATABASE_CONNECTIONS", &["2", "100000"][..]),
        ("API_ADDR", &["127.0.0.1:0", " [::1]:8080 "]),
        ("PING_INTERVAL", &["10ms", "1h"]),
        ("HISTORY_VERSIONS", &["1", "1000000000"]),
        ("HISTORY_AGE", &["1s", "3650d"]),
        ("NOTIFICATION_AGE", &["1s", "3650d"]),
        ("NOTIFICATION_COUNT", &["1", "100000000"]),
        ("LIMIT_SOCKETS", &["1", "100000000"]),
        ("MAX_MESSAGE_BYTES", &["32768", "16777216"]),
        ("MAX_POLL_BYTES", &["1048576", "67108864"]),
        ("OPEN_MODE", &["true", "false"]),
        ("TRUSTED_PROXIES", &["10.0.0.0/8, 192.0.2.1,", ","]),
        ("RUST_LOG", &["warn,georoom::server=info"]),
        ("LOG_FORMAT", &["json"]),
    ] {
        values.iter().for_each(|value| drop(good(&[(name, value)])));
    }
    assert_eq!(good(&[("RATE_LIMITS", "off")]).limits.quotas, None);
}

#[test]
fn bad_values_are_refused_with_one_line_that_names_the_setting() {
    let count = "must be an integer from 1 to 100000000";
    let time = "must be a time from 10ms to 1h, such as 25s";
    let address = "must be an address and port, such as 127.0.0.1:3000";
    for (name, value, reason) in [
        ("DATABASE_URL", "postgres://localhost/x", "must start with mysql:// or sqlite:"),
        ("DATABASE_CONNECTIONS", "1", "must be an integer from 2 to 100000"),
        ("DATABASE_CONNECTIONS", "many", "must be an integer from 2 to 100000"),
        ("API_ADDR", "localhost", address),
        ("API_ADDR", "127.0.0.1:70000", address),
        ("GATEWAY_ADDR", "3030", address),
        ("GATEWAY_ADDR", "127.0.0.1:3000", "must differ from API_ADDR: the gateway has a port of its own"),
        ("OPEN_MODE", "yes", "must be true or false"),
        (
            "CORS_ORIGINS",
            "https://a.example,*",
            "`*` is no origin such as https://map.example.org, capacitor://localhost or null",
        ),
        ("TRUSTED_PROXIES", "10.0.0.0/33", "`10.0.0.0/33` is no address and no network such as 10.0.0.0/8"),
        ("PING_INTERVAL", "25", time),
        ("PING_TIMEOUT", "0s", time),
        ("HEADER_TIMEOUT", "2h", time),
        ("HISTORY_VERSIONS", "0", "must be an integer from 1 to 1000000000"),
        ("HISTORY_AGE", "0s", "must be a time of at least 1s, such as 30d; unset: no limit"),
        ("NOTIFICATION_AGE", "soon", "must be a time of at least 1s, such as 90d"),
        ("NOTIFICATION_COUNT", "0", count),
        ("RATE_LIMITS", "yes", "must be on or off"),
        ("LIMIT_USER_REQUESTS", "0", count),
        ("LIMIT_SOCKETS", "100000001", count),
        ("LIMIT_SOCKETS", "-1", count),
        ("MAX_MESSAGE_BYTES", "1000", "must be a number of bytes from 32768 to 16777216"),
        ("MAX_POLL_BYTES", "1", "must be a number of bytes from 1048576 to 67108864"),
        ("LOG_FORMAT", "xml", "must be text or json"),
        ("JWT_SECRET", "short", "each secret must have 32 bytes or more; white space stands between several"),
        ("REDIS_URL", "redis://127.0.0.1", "is set, but this version cannot do that yet; unset it to start"),
        ("ADMIN_UI_READONLY", "true", "is set, but this version cannot do that yet; unset it to start"),
    ] {
        assert_eq!(load(&[(name, value)]).unwrap_err(), format!("{name}: {reason}"), "{name}={value}");
    }
    let error = load(&[("ADMIN_UI_PASSWORD_HASH_FILE", "/nowhere")]).unwrap_err();
    assert!(error.starts_with("ADMIN_UI_PASSWORD_HASH: is set, but"), "{error}");
    let error = load(&[("RATE_LIMITS", "off"), ("LIMIT_SOCKETS", "0")]).unwrap_err();
    assert_eq!(error, format!("LIMIT_SOCKETS: {count}"));
    assert!(load(&[("RUST_LOG", "georoom=loud")]).unwrap_err().starts_with("RUST_LOG: "));
    assert!(load(&[("DATABASE_URL_FILE", "/nowhere/url")]).unwrap_err().starts_with("DATABASE_URL_FILE: "));
}

#[test]
fn open_mode_needs_loopback_addresses_or_to_be_asked_for_and_no_key() {
    let (everywhere, open, key) = (("API_ADDR", "0.0.0.0:0"), ("OPEN_MODE", "true"), ("JWT_SECRET", SECRET));
    let error = load(&[everywhere]).unwrap_err();
    assert!(error.starts_with("OPEN_MODE: without authentication the server starts only on"), "{error}");
    let error = load(&[open, key]).unwrap_err();
    assert!(error.starts_with("OPEN_MODE: with a key there is no open mode"), "{error}");

    let origin = ("CORS_ORIGINS", "https://Map.example.org:443, null");
    let listed = ["https://map.example.org", "null"].map(http::HeaderValue::from_static);
    for (values, has_key, origins) in [
        (vec![everywhere, open], false, Origins::Any),
        (vec![everywhere, key], true, Origins::Listed(Vec::new())),
        (vec![open, origin], false, Origins::Listed(listed.to_vec())),
        (vec![key, origin], true, Origins::Listed(listed.to_vec())),
        (vec![origin], false, Origins::Listed(listed.to_vec())),
    ] {
        let auth = good(&values).auth;
        assert_eq!((auth.keys.is_some(), auth.origins), (has_key, origins), "{values:?}");
    }
}

#[test]
fn a_flag_goes_before_the_environment_and_must_not_have_a_password() {
    let url = "mysql://u:hunter2@127.0.0.1/x";
    let both = |flag: &'static str| {
        Config::load(
            move |name| (name == "DATABASE_URL").then(|| flag.to_owned()),
            move |name| if name == "DATABASE_URL" { Ok(url.to_owned()) } else { Err(VarError::NotPresent) },
        )
    };
    assert_eq!(both("sqlite://x.db").unwrap().database.url.expose(), "sqlite://x.db");
    let error = both("mysql://u:hunter2@127.0.0.1/y").unwrap_err().to_string();
    assert!(error.starts_with("DATABASE_URL: has a password") && !error.contains("hunter2"), "{error}");
    assert_eq!(good(&[("DATABASE_URL", url)]).database.url.expose(), url);
    assert!(!format!("{:?}", good(&[("DATABASE_URL", url), ("JWT_SECRET", SECRET)])).contains("hunter2"));
}

#[test]
fn a_secret_may_be_in_a_file_but_not_in_both_places() {
    let path = std::env::temp_dir().join(format!("georoom_config_{}", std::process::id()));
    fs::write(&path, format!("\u{feff}{SECRET}\n")).unwrap();
    let file = ("JWT_SECRET_FILE", path.to_str().unwrap());
    assert_eq!(good(&[file]).auth, good(&[("JWT_SECRET", SECRET)]).auth);
    let error = load(&[file, ("JWT_SECRET", SECRET)]).unwrap_err();
    assert_eq!(error, "JWT_SECRET_FILE: is set beside JWT_SECRET; set one of them");
    fs::remove_file(path).unwrap();
}

#[test]
fn a_value_that_is_not_utf_8_is_refused() {
    let bytes = OsString::from_vec(vec![0xff]);
    let error = Config::load(
        |_| None,
        |name| {
            Err(if name == "API_ADDR" { VarError::NotUnicode(bytes.clone()) } else { VarError::NotPresent })
        },
    );
    assert_eq!(error.unwrap_err().to_string(), "API_ADDR: is not UTF-8");
}
