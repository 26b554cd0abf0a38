//! The row by which a writer knows what it has committed.
//!
//! Each lane of each process has a row of its own in the table `writer`, and each of its transactions sets the row to a
//! new number: the row has that number exactly if the transaction was committed (docs/design/writer.md, "A lost
//! COMMIT"). Nobody else changes the row, so nobody waits for it.

use sea_orm::{ConnectionTrait, DatabaseBackend, DatabaseTransaction};

use crate::{
    domain::time::Timestamp,
    storage::{
        error::DbResult,
        sql::{Cell, Dialect, Rows, optional_number, statement},
    },
};

/// A lane's row, and the number that a committed transaction leaves in it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Proof {
    /// It is chosen at random, because processes know nothing of each other.
    id: u64,
    number: u64,
}

impl Proof {
    /// A row that is not in the table yet.
    pub fn new() -> Self {
        Self { id: rand::random_range(1..=i64::MAX as u64), number: 0 }
    }

    /// Counts another transaction; returns its proof.
    pub fn advance(&mut self) -> Self {
        self.number += 1;
        *self
    }

    /// The statement that writes the row.
    pub fn rows(self, dialect: Dialect, now: Timestamp) -> Rows {
        let updates = "commits = excluded.commits, committed_at = excluded.committed_at";
        let mut rows = Rows::upsert(dialect, "INSERT INTO writer (id, commits, committed_at)", updates);
        rows.push([Cell::number(self.id), Cell::number(self.number), Cell::number(now)]);
        rows
    }

    /// Reads whether the transaction was committed. Waits for a COMMIT that is still under way, whose connection
    /// [`crate::storage::pool::Store::begin`] has ended.
    pub async fn is_committed(self, tx: &DatabaseTransaction) -> DbResult<bool> {
        // SQLite locks the whole file.
        let sql = match tx.get_database_backend() {
            DatabaseBackend::MySql => "SELECT commits FROM writer WHERE id = ? FOR UPDATE",
            _ => "SELECT commits FROM writer WHERE id = ?",
        };
        Ok(optional_number(tx, statement(tx, sql, [self.id])).await? == Some(self.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_transactions_have_the_same_proof() {
        let (mut one, mut other) = (Proof::new(), Proof::new());
        let proofs = [one.advance(), one.advance(), other.advance()];
        assert_ne!(proofs[0], proofs[1]);
        assert_ne!(proofs[0], proofs[2]);
        assert!(i64::try_from(proofs[0].id).is_ok_and(|id| id > 0), "it fits into the column");
    }
}
