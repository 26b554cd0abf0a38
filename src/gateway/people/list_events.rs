//! What concerns people wherever they are: changes of their lists of locations, and notifications.
//!
//! Whom it concerns came with the event; here it is looked up which of them are connected.

use std::{collections::HashMap, sync::Arc};

use serde::Serialize;
use serde_json::value::RawValue;
use tracing::error;

use super::directory::{People, Way};
use crate::{
    domain::{
        access::Payer,
        event::{ListChange, RemovalReason},
        id::{LocationId, UserId},
        notification::AddressedNotice,
        time::Timestamp,
    },
    gateway::{
        rooms::{Rooms, presence::PAID_SOCKETS},
        socket::outbox::{Item, Outbox, body},
    },
};

const LOCATIONS: &str = "locations";
const NOTIFICATION: &str = "notification";
/// A larger Feature is not sent into lists.
const WHOLE_BYTES: usize = 16 * 1024;

/// Who has changed a list.
#[derive(Clone, Copy)]
pub struct Account {
    /// The caller on whose account it is sent; `None`: nobody's.
    pub payer: Option<Payer>,
    /// Whether the payer may send each person only so much of it whole.
    pub is_bounded: bool,
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

/// Tells those who are connected that their lists have changed. What is sent is made once for all of them: the
/// Feature, or where that is too large for a list the location's id and version, which whoever wants more asks for.
pub fn listed(rooms: &Rooms, change: &ListChange, ways: &[Way], Account { payer, is_bounded }: Account) {
    let limits = &rooms.service.limits;
    let (location, item) = match change {
        _ if ways.is_empty() => return,
        ListChange::Created(location) => (location, Item::Created(location.id, location.version)),
        ListChange::Updated(location) => (location, Item::Updated(location.id, location.version)),
        ListChange::Deleted(id, ending) => {
            if let Some(payer) = payer {
                limits.record_delivery(payer, paid_sockets(ways), 0);
            }
            return unlisted(ways, *id, *ending);
        }
    };
    let feature = location.feature();
    let whole = (feature.len() <= WHOLE_BYTES)
        .then(|| json([r#"{"action":""#, item.action(), r#"","location":"#, feature, "}"].concat()))
        .flatten();
    let Some(named) = item.named() else { return };
    // Others did not ask for it.
    let pair_payer = payer.filter(|_| is_bounded);
    let is_other = |user: &UserId| *user != location.updated_by && payer != Some(Payer::User(*user));
    // A person has several sockets.
    let mut shown: HashMap<UserId, bool> = HashMap::new();
    for Way { user, socket, outbox } in ways {
        let mut is_shown = || match pair_payer.zip(user.filter(is_other)) {
            None => true,
            Some((pair_payer, user)) => {
                *shown.entry(user).or_insert_with(|| limits.try_show(pair_payer, user))
            }
        };
        let text = match &whole {
            Some(whole) if is_shown() => whole,
            _ => &named,
        };
        outbox.send_list_event(socket, item, LOCATIONS, text.clone());
    }
    if let Some(payer) = payer {
        limits.record_delivery(payer, paid_sockets(ways), whole.map_or(0, |whole| whole.get().len()));
    }
}

/// Counts the sockets that the author of a change of lists pays for: at most [`PAID_SOCKETS`] of one user.
fn paid_sockets(ways: &[Way]) -> usize {
    let mut counts: HashMap<Option<UserId>, usize> = HashMap::new();
    let is_paid = |way: &&Way| {
        let count = counts.entry(way.user).or_default();
        *count += 1;
        // A socket in open mode may have no user, so each of these counts.
        way.user.is_none() || *count <= PAID_SOCKETS
    };
    ways.iter().filter(is_paid).count()
}

/// Tells sockets that a location has left their list, and ends those that do not read soon what they may no longer see.
fn unlisted(ways: &[Way], id: LocationId, ending: RemovalReason) {
    let Some(text) = Item::Deleted(id).named() else { return };
    let told = ways.iter().filter_map(|Way { socket, outbox, .. }| {
        let mark = outbox.send_removal(socket, id, LOCATIONS, text.clone(), ending)?;
        Some((outbox.clone(), mark))
    });
    Outbox::withdraw(told.collect());
}

/// Tells those who are connected what was stored for them.
pub fn notified(people: &People, told: &AddressedNotice) {
    let notice = &told.notice;
    let here = people.here(&told.recipients);
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
        for Way { socket, outbox, .. } in ways {
            outbox.send_event(&socket, NOTIFICATION, text.clone());
        }
    }
}

/// Text that was made of JSON. Were it none, this task would go on all the same: rooms live by it too.
fn json(text: String) -> Option<Arc<RawValue>> {
    let checked = RawValue::from_string(text);
    checked.inspect_err(|error| error!(%error, "an event that is no JSON was left out")).ok().map(Arc::from)
}
