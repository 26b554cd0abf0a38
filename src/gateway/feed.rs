//! What concerns people wherever they are: changes of their lists of locations, and notifications.
//!
//! Whom it concerns came with the event; here it is looked up which of them are connected.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;
use tracing::error;

use super::{
    outlet::{Item, Outlet, body},
    people::{People, Way},
};
use crate::domain::{
    event::Listed,
    id::{LocationId, UserId},
    notification::Told,
    time::Timestamp,
};

const LOCATIONS: &str = "locations";
const NOTIFICATION: &str = "notification";

/// The body of `locations`, where a location is gone from a list.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Gone {
    action: &'static str,
    location_id: LocationId,
}

/// The body of `notification` but for its `id`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Notification<'a> {
    kind: &'static str,
    message: &'a str,
    location_id: LocationId,
    created_at: Timestamp,
    fields: &'a RawValue,
}

/// Tells those who are connected that their lists have changed.
pub fn listed(people: &People, change: &Listed, to: &[UserId], and_admins: bool) {
    let ways = people.who_see(to, and_admins);
    if ways.is_empty() {
        return;
    }
    let (action, location, item) = match change {
        Listed::Created(location) => ("create", location, Item::Location(location.id)),
        Listed::Updated(location) => ("update", location, Item::Update(location.id)),
        Listed::Deleted(id) => return unlisted(ways, *id),
    };
    let text = [r#"{"action":""#, action, r#"","location":"#, location.feature(), "}"].concat();
    let Some(text) = json(text) else { return };
    for Way { socket, outlet } in ways {
        outlet.event_of(&socket, item, LOCATIONS, text.clone());
    }
}

/// A location is gone, or only their right to see it: then what is on its way may not stay there for long.
fn unlisted(ways: Vec<Way>, id: LocationId) {
    let text = body(&Gone { action: "delete", location_id: id });
    let told = ways.into_iter().filter_map(|Way { socket, outlet }| {
        let mark = outlet.withhold(Some(id));
        outlet.event(&socket, LOCATIONS, text.clone());
        Some((outlet, mark?))
    });
    Outlet::withdraw(told.collect());
}

/// Tells those who are connected what was stored for them.
pub fn notified(people: &People, told: &Told) {
    let notice = &told.notice;
    let here = people.here(&told.to);
    if here.is_empty() {
        return;
    }
    let Some(fields) = json(notice.fields.clone()) else { return };
    let rest = body(&Notification {
        kind: notice.kind,
        message: &notice.message,
        location_id: notice.location,
        created_at: notice.at,
        fields: &fields,
    });
    for (id, ways) in here {
        // The rest is written once for all.
        let text = [r#"{"id":"#, itoa::Buffer::new().format::<u64>(id), ",", &rest.get()[1..]].concat();
        let Some(text) = json(text) else { return };
        for Way { socket, outlet } in ways {
            outlet.event(&socket, NOTIFICATION, text.clone());
        }
    }
}

/// Text that was made of JSON. Were it none, this task would go on all the same: rooms live by it too.
fn json(text: String) -> Option<Arc<RawValue>> {
    let checked = RawValue::from_string(text);
    checked.inspect_err(|error| error!(%error, "an event that is no JSON was left out")).ok().map(Arc::from)
}
