//! The acts on locations that are there: update and delete.

use std::time::Instant;

use super::{
    act::{Done, Failure},
    audience::Account,
    transaction::Transaction,
};
use crate::domain::{
    access::{Action, Caller, Payer},
    event::{ListChange, RemovalReason},
    id::LocationId,
    location::Update,
    notification::ActivityKind,
    properties::{Properties, renamed},
};

/// Makes a location's next version.
pub fn update(
    tx: &mut Transaction<'_>,
    number: usize,
    update: &Update,
    payer: Option<Payer>,
    received_at: Instant,
) -> Result<Done, Failure> {
    let row = tx.locations.permit(update.id, &update.by, Action::Move)?;
    let renaming = renaming(&row.location.properties, update);
    let is_seen_in_lists = update.geometry.is_none() || renaming.is_some();
    if is_seen_in_lists {
        tx.store.check_debt(payer)?;
    }
    let location = tx.versions.update(row, update, received_at)?;
    let account = Account::new(&update.by, payer);
    if let Some((name, kind)) = renaming {
        let activity = account.activity(&update.by, &location, name, kind, tx.now);
        tx.effects.record_activity(number, activity);
    }
    if is_seen_in_lists {
        tx.effects.change_lists(number, account, &location, ListChange::Updated(location.clone()));
    }
    Ok(Done::Location(location))
}

/// Removes a location.
pub fn delete(
    tx: &mut Transaction<'_>,
    number: usize,
    id: LocationId,
    by: &Caller,
    payer: Option<Payer>,
) -> Result<Done, Failure> {
    let location = tx.locations.permit(id, by, Action::Manage)?.location.clone();
    tx.store.check_debt(payer)?;
    let account = Account::new(by, payer);
    let name = location.properties.name();
    let activity = account.activity(by, &location, name, ActivityKind::LocationDeleted, tx.now);
    tx.effects.record_activity(number, activity);
    let change = ListChange::Deleted(id, RemovalReason::Deleted);
    tx.effects.change_lists(number, account, &location, change);
    tx.locations.remove(id);
    tx.versions.removed.insert(id);
    Ok(Done::Location(location))
}

/// The name of a location, and what an update does to it; `None`: the name stays.
fn renaming(properties: &Properties, update: &Update) -> Option<(Option<String>, ActivityKind)> {
    let new = renamed(update.patch.as_ref()?)?;
    let name = properties.name();
    let is_new = name.as_deref() != new;
    is_new.then(|| (name, ActivityKind::LocationRenamed(new.map(str::to_owned))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_renames_where_it_gives_another_name() {
        let update = |body: &str| Update::from_body(body.as_bytes(), None, None).unwrap();
        let named = Properties::from_stored(r#"{"name":"bike"}"#.to_owned()).unwrap();
        let unnamed = Properties::from_stored("{}".to_owned()).unwrap();
        for (properties, patch, expected) in [
            (&named, r#"{"name":"car"}"#, Some((Some("bike"), Some("car")))),
            (&named, r#"{"name":null}"#, Some((Some("bike"), None))),
            (&named, r#"{"name":"bike"}"#, None),
            (&named, r#"{"colour":"red"}"#, None),
            (&unnamed, r#"{"name":"car"}"#, Some((None, Some("car")))),
            (&unnamed, r#"{"name":null}"#, None),
        ] {
            let expected = expected.map(|(name, new)| {
                (name.map(str::to_owned), ActivityKind::LocationRenamed(new.map(str::to_owned)))
            });
            let update = update(&format!(r#"{{"id":42,"properties":{patch}}}"#));
            assert_eq!(renaming(properties, &update), expected, "{patch}");
        }
    }
}
