//! The part of all locations that a caller sees in lists, and the query for it.

use sea_orm::Value;

use crate::{
    domain::{access::Caller, id::UserId},
    storage::sql::Number,
};

/// The locations that somebody sees in lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Visible {
    /// All locations.
    All,
    /// The locations that a user owns or is a member of.
    OfUser(UserId),
    /// No location: a share link shows one, but lists nothing.
    Nothing,
}

impl Visible {
    /// The locations that a caller sees.
    pub fn to(caller: &Caller) -> Self {
        match caller {
            Caller::Anyone(_) | Caller::User { is_admin: true, .. } => Self::All,
            Caller::User { id, .. } => Self::OfUser(*id),
            Caller::Guest(_) => Self::Nothing,
        }
    }

    /// The user's id for a comparison; NULL is equal to nobody's. `None`: there is nothing to compare.
    pub fn user(self) -> Option<Value> {
        match self {
            Self::All => None,
            Self::OfUser(user) => Some(Number::from(user).into()),
            Self::Nothing => Some(Value::BigInt(None)),
        }
    }

    /// A query for `id` and `created_at` of these locations, and its values. `None`: it is all of them. With `newest`,
    /// of a user's own only the newest so many.
    pub fn query(self, newest: Option<u64>) -> Option<(String, Vec<Value>)> {
        let user = self.user()?;
        let order = newest.map_or("", |_| "ORDER BY created_at DESC, id DESC LIMIT ?");
        let sql = format!(
            "SELECT id, created_at FROM \
               (SELECT id, created_at FROM location WHERE owner_id = ? {order}) AS own \
             UNION SELECT location.id, location.created_at \
               FROM member JOIN location ON location.id = member.location_id WHERE member.user_id = ?"
        );
        let values = [Some(user.clone()), newest.map(Value::from), Some(user)];
        Some((sql, values.into_iter().flatten().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_has_a_value_for_each_placeholder() {
        for visible in [Visible::OfUser(UserId::DEFAULT), Visible::Nothing] {
            for newest in [None, Some(20)] {
                let (sql, values) = visible.query(newest).expect("not all");
                assert_eq!(sql.matches('?').count(), values.len(), "{visible:?} {newest:?}");
            }
        }
        assert_eq!(Visible::All.query(Some(20)), None);
    }
}
