//! SQL: statements and their values, the columns of rows, and statements that write many rows.
//!
//! Most statements of this floor are written by hand, because the order of joins and the use of indexes matter. In the
//! database every id, version and time is a signed 64-bit integer. They are converted here ([`Number`]) and nowhere
//! else.

use sea_orm::{ConnectionTrait, Statement, Value};

use super::error::DbResult;

mod number;
mod rows;

pub use number::{Number, Unsigned};
pub use rows::{Cell, Dialect, Rows};

/// The ids of notifications that a notice may have: more than the most members of a location and its owner. The id of
/// a notification is its notice's id times this, and a number of its own.
pub const NOTIFICATIONS_OF_A_NOTICE: u64 = 1 << 14;

/// A statement with any values.
pub fn with_values(
    db: &impl ConnectionTrait,
    sql: &str,
    values: impl IntoIterator<Item = Value>,
) -> Statement {
    Statement::from_sql_and_values(db.get_database_backend(), sql, values)
}

/// A statement whose values are all numbers.
pub fn statement(
    db: &impl ConnectionTrait,
    sql: &str,
    numbers: impl IntoIterator<Item: Into<Number>>,
) -> Statement {
    with_values(db, sql, numbers.into_iter().map(|number| number.into().into()))
}

/// Reads the number that a statement asks for. `None`: there is no row, or an aggregate is over no rows.
pub async fn optional_number(db: &impl ConnectionTrait, statement: Statement) -> DbResult<Option<u64>> {
    let row = db.query_one_raw(statement).await?;
    let number: Option<Option<Unsigned>> = row.map(|row| row.try_get_by_index(0)).transpose()?;
    Ok(number.flatten().map(|Unsigned(number)| number))
}

/// Reads the number that a statement counts.
pub async fn count(db: &impl ConnectionTrait, statement: Statement) -> DbResult<u64> {
    Ok(optional_number(db, statement).await?.unwrap_or_default())
}

/// Reads the numbers that a statement asks for, one a row.
pub async fn numbers(db: &impl ConnectionTrait, statement: Statement) -> DbResult<Vec<u64>> {
    let rows = db.query_all_raw(statement).await?;
    rows.iter().map(|row| Ok(row.try_get_by_index::<Unsigned>(0)?.0)).collect()
}

/// The placeholders of a list of numbers, and its values. Its length is a power of two, with the last number repeated,
/// so that there are few different texts to prepare.
pub fn number_list(numbers: impl IntoIterator<Item: Into<Number>>) -> (String, Vec<Value>) {
    let mut values: Vec<Value> = numbers.into_iter().map(|number| number.into().into()).collect();
    if let Some(last) = values.last().cloned() {
        values.resize(values.len().next_power_of_two(), last);
    }
    (vec!["?"; values.len()].join(","), values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_few_different_lengths_and_no_other_numbers() {
        for (len, expected) in [(0_u64, 0), (1, 1), (2, 2), (3, 4), (100, 128)] {
            let (placeholders, values) = number_list(1..=len);
            assert_eq!((placeholders.matches('?').count(), values.len()), (expected, expected));
            assert!(values.iter().skip(len as usize).all(|value| *value == Value::from(len as i64)));
        }
    }
}
