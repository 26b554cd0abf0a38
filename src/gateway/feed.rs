//! What concerns people wherever they are: changes of their lists of locations, and notifications.
//!
//! Whom it concerns came with the event; here it is looked up which of them are connected.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    outlet::{Outlet, body},
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

/// The body of `notification`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Notification<'a> {
    id: u64,
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
    let (action, location) = match change {
        Listed::Created(location) => ("create", location),
        Listed::Updated(location) => ("update", location),
        Listed::Deleted(id) => return unlisted(ways, *id, and_admins),
    };
    let text = [r#"{"action":""#, action, r#"","location":"#, location.feature(), "}"].concat();
    let text: Arc<RawValue> = RawValue::from_string(text).expect("a Feature is JSON").into();
    for Way { socket, outlet } in ways {
        outlet.event_of(&socket, location.id, LOCATIONS, text.clone());
    }
}

/// A location is gone, or only their right to see it.
fn unlisted(ways: Vec<Way>, id: LocationId, is_gone: bool) {
    let text = body(&Gone { action: "delete", location_id: id });
    let told = ways.into_iter().map(|Way { socket, outlet }| {
        outlet.withhold(id);
        // First: what is written now asks for the confirmation of what was written before.
        let mark = outlet.mark();
        outlet.event(&socket, LOCATIONS, text.clone());
        (outlet, mark)
    });
    let told = told.collect();
    if !is_gone {
        Outlet::withdraw(told);
    }
}

/// Tells those who are connected what was stored for them.
pub fn notified(people: &People, told: &Told) {
    let notice = &told.notice;
    let fields: Box<RawValue> = RawValue::from_string(notice.fields.clone()).expect("fields are JSON");
    for (user, id) in told.to.iter().filter(|(user, _)| people.has(*user)) {
        let notification = Notification {
            id: *id,
            kind: notice.kind,
            message: &notice.message,
            location_id: notice.location,
            created_at: notice.at,
            fields: &fields,
        };
        people.to_user(*user, NOTIFICATION, &body(&notification));
    }
}
