//! `DATABASE_URL`, and errors of the database in words for operators: which host or file, the error, what helps.
//!
//! The driver's messages name neither the host nor a remedy. The URL may hold a password, so it is never repeated
//! whole.

use std::{io::ErrorKind, path::Path};

use sea_orm::DbErr;
use url::Url;

use crate::storage::error::{is_out_of_connections, mysql_number, sqlite_code, sqlx_error};

/// Access denied: a wrong user or password; by a plugin.
const ACCESS_DENIED: [u16; 2] = [1045, 1698];
/// Access denied to a database; command denied.
const NOT_GRANTED: [u16; 2] = [1044, 1142];
/// Unknown database.
const NO_DATABASE: u16 = 1049;
/// SQLITE_READONLY, SQLITE_CANTOPEN, SQLITE_NOTADB.
const SQLITE_READ_ONLY: u32 = 8;
const SQLITE_CANNOT_OPEN: u32 = 14;
const SQLITE_NOT_A_DATABASE: u32 = 26;

/// The host and database, or the file, of a `DATABASE_URL`.
fn place(url: &str) -> String {
    if let Some(file) = url.strip_prefix("sqlite:") {
        return sqlite_file(file).to_owned();
    }
    match Url::parse(url) {
        Ok(url) => {
            let (host, port) = (url.host_str().unwrap_or_default(), url.port().unwrap_or(3306));
            format!("database {} at {host}:{port}", url.path().trim_start_matches('/'))
        }
        Err(_) => "MySQL".to_owned(),
    }
}

/// The file of a SQLite URL, given without its scheme.
pub fn sqlite_file(rest: &str) -> &str {
    rest.trim_start_matches("//").split('?').next().unwrap_or_default()
}

/// Explains an error of the database in one line: where the database is, the error, and what helps.
pub fn explain(url: &str, error: &DbErr) -> String {
    let remedy = remedy(url, error).map(|remedy| format!("; {remedy}")).unwrap_or_default();
    let text = match error {
        DbErr::Custom(text) => text.clone(),
        error => error.to_string(),
    };
    // A driver's error may have several lines.
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    format!("{}: {line}{remedy}", place(url))
}

fn remedy(url: &str, error: &DbErr) -> Option<&'static str> {
    if let Some(number) = mysql_number(error) {
        return match number {
            _ if is_out_of_connections(error) => {
                Some("have DATABASE_CONNECTIONS below what the account and the server allow")
            }
            _ if ACCESS_DENIED.contains(&number) => Some(
                "check user and password; in the URL a password has @ : / # ? % percent-encoded: \
                 %40 %3A %2F %23 %3F %25",
            ),
            _ if NOT_GRANTED.contains(&number) => {
                Some("grant the user SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX on the database")
            }
            NO_DATABASE => Some("create it first: CREATE DATABASE"),
            _ => None,
        };
    }
    if let Some(code) = sqlite_code(error) {
        let is_there = url.strip_prefix("sqlite:").is_some_and(|rest| Path::new(sqlite_file(rest)).exists());
        return match code {
            SQLITE_CANNOT_OPEN if !is_there && !url.contains("mode=rwc") => {
                Some("there is no such file; with ?mode=rwc behind it in the URL it is made")
            }
            SQLITE_CANNOT_OPEN | SQLITE_READ_ONLY => {
                Some("the file and its folder must be writable for the user that georoom runs as")
            }
            SQLITE_NOT_A_DATABASE => Some("the file is no SQLite database; name another"),
            _ => None,
        };
    }
    match sqlx_error(error) {
        Some(sea_orm::sqlx::Error::Io(error)) if error.kind() == ErrorKind::ConnectionRefused => {
            Some("is MySQL running there, and is the port right?")
        }
        Some(sea_orm::sqlx::Error::Io(_)) => Some("is the host's name right, and can it be reached?"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_host_or_a_file_and_never_a_password() {
        for (url, expected) in [
            ("mysql://root:hunter2@db.example:3307/georoom", "database georoom at db.example:3307"),
            ("mysql://root@127.0.0.1/georoom?ssl-mode=REQUIRED", "database georoom at 127.0.0.1:3306"),
            ("mysql://root:hunter2@[::1]/x", "database x at [::1]:3306"),
            ("sqlite://data/georoom.db?mode=rwc", "data/georoom.db"),
            ("sqlite:///var/x.db", "/var/x.db"),
            ("sqlite:x.db", "x.db"),
        ] {
            assert_eq!(place(url), expected);
        }
    }
}
