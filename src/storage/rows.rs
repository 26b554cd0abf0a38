//! A statement that writes many rows.
//!
//! MySQL gets the rows as text, several statements in one packet: prepared, each number of rows would be
//! another statement to keep. Strings are in hexadecimal there, so nothing needs quoting. SQLite, which
//! limits the length of a text and prepares it cheaply, gets them as parameters.

use std::fmt::Write as _;

use sea_orm::{ConnectionTrait, DatabaseBackend, DbErr, Statement, Value};

use crate::domain::id::LocationId;

/// A text longer than this is sent before the next row is added: the database limits packets, and memory
/// is better used.
const LARGE: usize = 4 * 1024 * 1024;

/// One value of a row.
#[derive(Clone, Copy, Debug)]
pub enum Cell<'a> {
    Int(i64),
    Double(f64),
    Bytes(&'a [u8]),
    Text(&'a str),
    Null,
}

/// `INSERT INTO … VALUES (…), (…) …`, growing row by row.
#[derive(Clone, Debug)]
pub struct Rows {
    backend: DatabaseBackend,
    /// What stands before the rows and after them.
    insert: &'static str,
    tail: &'static str,
    sql: String,
    values: Vec<Value>,
    is_empty: bool,
}

impl Rows {
    /// A statement without rows: what stands before and after them.
    pub fn new(backend: DatabaseBackend, insert: &'static str, tail: &'static str) -> Self {
        Self { backend, insert, tail, sql: format!("{insert} VALUES "), values: Vec::new(), is_empty: true }
    }

    /// Whose dialect it is in.
    pub fn backend(&self) -> DatabaseBackend {
        self.backend
    }

    /// Adds a row.
    pub fn push<'a>(&mut self, cells: impl IntoIterator<Item = Cell<'a>>) {
        self.sql.push_str(if self.is_empty { "(" } else { ",(" });
        self.is_empty = false;
        for (index, cell) in cells.into_iter().enumerate() {
            if index > 0 {
                self.sql.push(',');
            }
            if self.backend == DatabaseBackend::MySql {
                cell.write_to(&mut self.sql);
            } else {
                self.sql.push('?');
                self.values.push(cell.into());
            }
        }
        self.sql.push(')');
    }

    /// Sends what there is as soon as it is worth a packet of its own, and goes on with none.
    pub async fn send_if_large(&mut self, db: &impl ConnectionTrait) -> Result<(), DbErr> {
        if self.sql.len() < LARGE {
            return Ok(());
        }
        let rest = Self::new(self.backend, self.insert, self.tail);
        Self::send([std::mem::replace(self, rest)], db).await
    }

    /// Sends those of the statements that have rows, in this order.
    pub async fn send<const N: usize>(all: [Self; N], db: &impl ConnectionTrait) -> Result<(), DbErr> {
        let mut text = String::new();
        for Self { backend, mut sql, tail, values, .. } in all.into_iter().filter(|rows| !rows.is_empty) {
            sql.push_str(tail);
            if backend != DatabaseBackend::MySql {
                db.execute_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
            } else if text.is_empty() {
                text = sql;
            } else {
                text.push(';');
                text.push_str(&sql);
            }
        }
        if !text.is_empty() {
            db.execute_unprepared(&text).await?;
        }
        Ok(())
    }
}

impl Cell<'_> {
    /// As MySQL's literal.
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

/// A list of ids for a statement, and its values. Its length is a power of two, with the last id repeated,
/// so that there are few different texts to prepare.
pub fn id_list(ids: &[LocationId]) -> (String, Vec<Value>) {
    padded(ids.iter().map(|id| id.get()))
}

/// The same of any numbers.
pub fn padded(numbers: impl Iterator<Item = u64>) -> (String, Vec<Value>) {
    let mut values: Vec<Value> = numbers.map(|number| (number as i64).into()).collect();
    if let Some(last) = values.last().cloned() {
        values.resize(values.len().next_power_of_two(), last);
    }
    (vec!["?"; values.len()].join(","), values)
}
