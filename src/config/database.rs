//! The database to connect to. A URL may hold a password, so it is a [`Secret`], and no error repeats it.

use std::{fmt, ops::RangeInclusive};

use url::Url;

use super::source::{Invalid, Source};

/// The writer and the readers need a connection each; MySQL itself accepts no more than the upper bound.
const CONNECTIONS: RangeInclusive<u32> = 2..=100_000;
/// The form of a URL, for error messages.
const FORM: &str = "mysql://user:password@host:3306/database";
/// Advice on writing a password, for error messages.
const ENCODE: &str = "in a password write @ : / # ? % as %40 %3A %2F %23 %3F %25";

/// The database and how it is connected to.
#[derive(Clone, Debug, PartialEq)]
pub struct Database {
    /// The URL, which may hold a password.
    pub url: Secret,
    /// The largest number of connections to MySQL.
    pub connections: u32,
}

/// A value that no log or error shows.
#[derive(Clone, PartialEq)]
pub struct Secret(String);

impl Secret {
    /// Returns the value itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl Database {
    pub(super) fn read(source: &Source) -> Result<Self, Invalid> {
        let connections = source.number("DATABASE_CONNECTIONS", "an integer", &CONNECTIONS)?;
        Ok(Self { url: read_url(source)?, connections })
    }
}

fn read_url(source: &Source) -> Result<Secret, Invalid> {
    const NAME: &str = "DATABASE_URL";
    let given = source.value_or_file(NAME)?;
    let (url, is_flag) = given.unwrap_or_else(|| (source.text(NAME).to_owned(), false));
    let url = url.trim();
    if url.starts_with("mysql:") {
        // Checked here, because the driver's message about a bad URL repeats it, password and all.
        let parsed = parse_mysql_url(url).map_err(|reason| Invalid::new(NAME, reason))?;
        if is_flag && parsed.password().is_some() {
            let reason = "has a password, and every process of the machine can read a flag; \
                          use the environment or DATABASE_URL_FILE";
            return Err(Invalid::new(NAME, reason));
        }
    } else if !url.starts_with("sqlite:") {
        return Err(Invalid::new(NAME, "must start with mysql:// or sqlite:"));
    }
    Ok(Secret(url.to_owned()))
}

/// Parses a URL that must name a host and a database, or returns what is wrong with it. A character that is not encoded
/// in a password would end it, and the rest would be taken for another host.
fn parse_mysql_url(text: &str) -> Result<Url, String> {
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
            assert!(parse_mysql_url(good).is_ok(), "{good}: {:?}", parse_mysql_url(good));
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
            let why = parse_mysql_url(bad).unwrap_err();
            assert!(why.contains(says) && !why.contains("hunter2"), "{bad}: {why}");
        }
    }
}
