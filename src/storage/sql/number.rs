//! Ids, versions, counts and times as the signed 64-bit integers that columns hold.

use sea_orm::{ColIdx, DbErr, QueryResult, TryGetError, TryGetable, Value};

use crate::domain::{
    id::{LocationId, ShareId, UserId},
    time::Timestamp,
};

/// A number as a column holds it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Number(pub i64);

/// A version, a count or an id of no other type, read from a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Unsigned(pub u64);

impl Number {
    /// A value that may be null.
    pub fn or_null(number: Option<impl Into<Self>>) -> Value {
        Value::from(number.map(|number| number.into().0))
    }
}

impl From<u64> for Number {
    fn from(number: u64) -> Self {
        // Ids end at 2^53 and versions are counted one by one.
        Self(number as i64)
    }
}

impl From<i64> for Number {
    fn from(number: i64) -> Self {
        Self(number)
    }
}

impl From<LocationId> for Number {
    fn from(id: LocationId) -> Self {
        id.get().into()
    }
}

impl From<UserId> for Number {
    fn from(id: UserId) -> Self {
        id.get().into()
    }
}

impl From<ShareId> for Number {
    fn from(id: ShareId) -> Self {
        id.0.into()
    }
}

impl From<Timestamp> for Number {
    fn from(time: Timestamp) -> Self {
        Self(time.as_millis())
    }
}

impl From<Number> for Value {
    fn from(Number(number): Number) -> Self {
        number.into()
    }
}

impl TryGetable for Unsigned {
    fn try_get_by<I: ColIdx>(row: &QueryResult, index: I) -> Result<Self, TryGetError> {
        let number = i64::try_get_by(row, index)?;
        number.try_into().map(Self).map_err(|_| invalid(index, number))
    }
}

impl TryGetable for LocationId {
    fn try_get_by<I: ColIdx>(row: &QueryResult, index: I) -> Result<Self, TryGetError> {
        let Unsigned(id) = Unsigned::try_get_by(row, index)?;
        Self::new(id).ok_or_else(|| invalid(index, id))
    }
}

impl TryGetable for UserId {
    fn try_get_by<I: ColIdx>(row: &QueryResult, index: I) -> Result<Self, TryGetError> {
        let Unsigned(id) = Unsigned::try_get_by(row, index)?;
        Self::new(id).ok_or_else(|| invalid(index, id))
    }
}

impl TryGetable for ShareId {
    fn try_get_by<I: ColIdx>(row: &QueryResult, index: I) -> Result<Self, TryGetError> {
        Unsigned::try_get_by(row, index).map(|Unsigned(id)| Self(id))
    }
}

impl TryGetable for Timestamp {
    fn try_get_by<I: ColIdx>(row: &QueryResult, index: I) -> Result<Self, TryGetError> {
        i64::try_get_by(row, index).map(Self::from_millis)
    }
}

fn invalid(column: impl ColIdx, number: impl std::fmt::Display) -> TryGetError {
    DbErr::Custom(format!("column {column:?} holds {number}")).into()
}
