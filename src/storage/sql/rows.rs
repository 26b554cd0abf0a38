//! Statements that write many rows.
//!
//! MySQL gets the rows as text, several statements in one packet: prepared, each number of rows would be another
//! statement to keep. Strings are in hexadecimal there, so nothing needs quoting. SQLite limits the length of a text
//! and prepares it cheaply, so it gets the rows as parameters.
//!
//! MySQL closes a connection that sends a packet larger than its `max_allowed_packet`, so rows are divided into
//! statements below that. A single row that is too large is refused before it is written ([`Dialect::check_row`]).

use std::fmt::Write as _;

use sea_orm::{ConnectionTrait, DatabaseBackend, Statement, Value};

use super::number::Number;
use crate::{
    domain::error::{Code, Error, Result},
    storage::error::DbResult,
};

/// Largest packet that is sent, however much MySQL accepts: a larger one only takes more memory.
const MAX_PACKET: usize = 4 * 1024 * 1024;
/// Bytes kept free in a packet for its header and for the SQL around the cells of a row.
const PACKET_SPARE: usize = 1024;

/// The database that a statement is written for, and the largest packet it accepts.
#[derive(Clone, Copy, Debug)]
pub struct Dialect {
    pub backend: DatabaseBackend,
    /// MySQL's `max_allowed_packet`.
    pub max_packet: usize,
}

impl Dialect {
    /// Largest statement in bytes.
    fn packet(self) -> usize {
        match self.backend {
            DatabaseBackend::MySql => self.max_packet.saturating_sub(PACKET_SPARE).min(MAX_PACKET),
            _ => usize::MAX,
        }
    }

    /// Checks that a row with so many bytes of text and blobs fits into one packet.
    ///
    /// # Errors
    /// `payload_too_large`.
    pub fn check_row(self, bytes: usize) -> Result<()> {
        // Text and blobs are sent in hexadecimal, two digits a byte.
        if self.backend != DatabaseBackend::MySql || 2 * bytes + PACKET_SPARE <= self.max_packet {
            return Ok(());
        }
        let detail = format!(
            "the location has {bytes} bytes in the database, which accepts at most {} (its max_allowed_packet is {})",
            self.max_packet.saturating_sub(PACKET_SPARE) / 2,
            self.max_packet
        );
        Err(Error::new(Code::PayloadTooLarge, detail))
    }
}

/// A value of a row to be written.
#[derive(Clone, Copy, Debug)]
pub enum Cell<'a> {
    Int(i64),
    Double(f64),
    Bytes(&'a [u8]),
    Text(&'a str),
    Null,
}

/// `INSERT INTO … VALUES (…), (…) …`, growing row by row; several such statements if one packet cannot hold all rows.
#[derive(Clone, Debug)]
pub struct Rows {
    pub dialect: Dialect,
    /// The text before the rows, and the texts behind them.
    insert: &'static str,
    tail: [&'static str; 2],
    /// Statements that cannot hold another row. They have no `values`: only MySQL limits packets.
    full: Vec<String>,
    sql: String,
    values: Vec<Value>,
    is_empty: bool,
}

impl Rows {
    /// A statement without rows; `insert` is the text before them.
    pub fn new(dialect: Dialect, insert: &'static str) -> Self {
        let (sql, full) = (format!("{insert} VALUES "), Vec::new());
        Self { dialect, insert, tail: ["", ""], full, sql, values: Vec::new(), is_empty: true }
    }

    /// The same where a row with a known `id` is changed by `updates`, which name the new row `excluded`.
    pub fn upsert(dialect: Dialect, insert: &'static str, updates: &'static str) -> Self {
        let on_conflict = match dialect.backend {
            DatabaseBackend::MySql => " AS excluded ON DUPLICATE KEY UPDATE ",
            _ => " ON CONFLICT (id) DO UPDATE SET ",
        };
        Self { tail: [on_conflict, updates], ..Self::new(dialect, insert) }
    }

    /// Adds a row.
    pub fn push<'a>(&mut self, cells: impl IntoIterator<Item = Cell<'a>>) {
        let before = self.sql.len();
        self.sql.push_str(if self.is_empty { "(" } else { ",(" });
        for (index, cell) in cells.into_iter().enumerate() {
            if index > 0 {
                self.sql.push(',');
            }
            if self.dialect.backend == DatabaseBackend::MySql {
                cell.write_to(&mut self.sql);
            } else {
                self.sql.push('?');
                self.values.push(cell.into());
            }
        }
        self.sql.push(')');
        if !self.is_empty && self.sql.len() + self.tail[0].len() + self.tail[1].len() > self.dialect.packet()
        {
            let row = self.sql.split_off(before);
            let next = [self.insert, " VALUES ", row.trim_start_matches(',')].concat();
            let mut full = std::mem::replace(&mut self.sql, next);
            full.extend(self.tail);
            self.full.push(full);
        }
        self.is_empty = false;
    }

    /// Sends the statements that cannot hold another row, so that they need not wait in memory.
    pub async fn send_full(&mut self, db: &impl ConnectionTrait) -> DbResult<()> {
        for sql in self.full.drain(..) {
            db.execute_unprepared(&sql).await?;
        }
        Ok(())
    }

    /// Sends the statements that have rows, in this order, as many in one packet as fit.
    pub async fn send<const N: usize>(all: [Self; N], db: &impl ConnectionTrait) -> DbResult<()> {
        let mut text = String::new();
        for mut rows in all.into_iter().filter(|rows| !rows.is_empty) {
            rows.sql.extend(rows.tail);
            if rows.dialect.backend != DatabaseBackend::MySql {
                let statement = Statement::from_sql_and_values(rows.dialect.backend, rows.sql, rows.values);
                db.execute_raw(statement).await?;
                continue;
            }
            for sql in rows.full.into_iter().chain([rows.sql]) {
                if text.is_empty() {
                    text = sql;
                } else if text.len() + 1 + sql.len() <= rows.dialect.packet() {
                    text.push(';');
                    text.push_str(&sql);
                } else {
                    db.execute_unprepared(&std::mem::replace(&mut text, sql)).await?;
                }
            }
        }
        if !text.is_empty() {
            db.execute_unprepared(&text).await?;
        }
        Ok(())
    }
}

impl Cell<'_> {
    /// An id, a version, a count or a time.
    pub fn number(number: impl Into<Number>) -> Self {
        Self::Int(number.into().0)
    }

    /// Writes the value as a literal of MySQL.
    fn write_to(self, sql: &mut String) {
        match self {
            Self::Int(value) => sql.push_str(itoa::Buffer::new().format(value)),
            Self::Double(value) => _ = write!(sql, "{value:e}"),
            Self::Bytes(bytes) => push_hex(sql, "x'", bytes),
            Self::Text(text) => push_hex(sql, "_utf8mb4 x'", text.as_bytes()),
            Self::Null => sql.push_str("NULL"),
        }
    }
}

fn push_hex(sql: &mut String, before: &str, bytes: &[u8]) {
    sql.push_str(before);
    for some in bytes.chunks(128) {
        let mut digits = [0; 256];
        sql.push_str(const_hex::encode_to_str(some, &mut digits[..2 * some.len()]).expect("twice the room"));
    }
    sql.push('\'');
}

impl From<Cell<'_>> for Value {
    fn from(cell: Cell<'_>) -> Self {
        match cell {
            Cell::Int(value) => value.into(),
            Cell::Double(value) => value.into(),
            Cell::Bytes(bytes) => bytes.into(),
            Cell::Text(text) => text.into(),
            Cell::Null => Self::Bytes(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The texts that rows of so many bytes become, all of them.
    fn statements(max_packet: usize, sizes: &[usize]) -> Vec<String> {
        let dialect = Dialect { backend: DatabaseBackend::MySql, max_packet };
        let mut rows = Rows::upsert(dialect, "INSERT INTO t (a)", "a = excluded.a");
        for size in sizes {
            rows.push([Cell::Bytes(&vec![0; *size])]);
        }
        rows.full.into_iter().chain([rows.sql + &rows.tail.concat()]).collect()
    }

    #[test]
    fn no_statement_is_larger_than_a_packet_unless_a_row_is() {
        const PACKET: usize = 10_000;
        for sizes in [vec![100; 200], vec![4_000, 600, 100, 3_000, 20, 4_200], vec![9_000, 1, 9_000]] {
            let statements = statements(PACKET, &sizes);
            assert!(statements.len() > 1);
            let rows = |sql: &str| sql.matches("(x'").count();
            assert_eq!(statements.iter().map(|sql| rows(sql)).sum::<usize>(), sizes.len());
            for sql in &statements {
                let tail = "') AS excluded ON DUPLICATE KEY UPDATE a = excluded.a";
                assert!(sql.starts_with("INSERT INTO t (a) VALUES (x'") && sql.ends_with(tail));
                assert!(sql.len() <= PACKET - PACKET_SPARE || rows(sql) == 1, "{}", sql.len());
                assert!(!sql.contains(",,") && !sql.contains("VALUES ,"));
            }
        }
        assert_eq!(statements(64 * 1024 * 1024, &[100; 200]).len(), 1);
    }

    #[test]
    fn a_row_that_fits_into_no_packet_is_refused_with_both_sizes() {
        let mysql = Dialect { backend: DatabaseBackend::MySql, max_packet: 10_000 };
        assert!(mysql.check_row(4_488).is_ok());
        let error = mysql.check_row(4_489).unwrap_err();
        assert_eq!(error.code, Code::PayloadTooLarge);
        assert!(error.detail.contains("4489") && error.detail.contains("max_allowed_packet"), "{error}");
        let sqlite = Dialect { backend: DatabaseBackend::Sqlite, max_packet: 0 };
        assert!(sqlite.check_row(1 << 30).is_ok());
    }
}
