//! Events for users wherever they are: changes of their lists of locations, and notifications.
//!
//! Each event is written once for all of its recipients.

use std::{collections::HashMap, sync::Arc};

use serde::Serialize;
use serde_json::value::RawValue;
use tracing::error;

use super::directory::{Directory, Recipient};
use crate::{
    domain::{
        access::Payer,
        event::{ListChange, RemovalReason},
        id::{LocationId, UserId},
        location::Committed,
        notification::AddressedNotice,
        time::Timestamp,
    },
    gateway::socket::outbox::{Item, Kind, Outbox, body},
    service::limits::{Limits, PAID_SOCKETS},
};

/// Limits the bytes of a Feature in a list's event.
const MAX_FEATURE_BYTES: usize = 16 * 1024;

/// The body of `notification` without its `id`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Notification<'a> {
    kind: &'static str,
    message: &'a str,
    location_id: LocationId,
    created_at: Timestamp,
    fields: &'a RawValue,
}

/// Sends a change of lists to the sockets that see it. A Feature that is too large for a list is left out: the event
/// then names the location's id and version, and a client that wants more asks for it. `payer` is `None` if nobody
/// pays. With `is_bounded` the payer may send each other user only a limited number of whole Features.
pub fn send_list_change(
    limits: &Limits,
    change: &ListChange,
    recipients: &[Recipient],
    payer: Option<Payer>,
    is_bounded: bool,
) {
    if recipients.is_empty() {
        return;
    }
    let bytes = match change {
        ListChange::Created(location) | ListChange::Updated(location) => {
            let new = if let ListChange::Created(_) = change { Item::Created } else { Item::Updated };
            let item = new(location.id, location.version);
            send_location(limits, location, item, recipients, payer, is_bounded)
        }
        ListChange::Deleted(id, reason) => {
            send_removal(recipients, *id, *reason);
            0
        }
    };
    if let Some(payer) = payer {
        limits.record_delivery(payer, paid_sockets(recipients), bytes);
    }
}

/// Sends a location that is new in lists or has changed. It returns the bytes of the event with the Feature.
fn send_location(
    limits: &Limits,
    location: &Committed,
    item: Item,
    recipients: &[Recipient],
    payer: Option<Payer>,
    is_bounded: bool,
) -> usize {
    let feature = location.feature();
    let whole = (feature.len() <= MAX_FEATURE_BYTES)
        .then(|| json([r#"{"action":""#, item.action(), r#"","location":"#, feature, "}"].concat()))
        .flatten();
    let named = item.named();
    // Users other than the payer did not ask for the Feature.
    let pair_payer = payer.filter(|_| is_bounded);
    let is_other = |user: &UserId| *user != location.updated_by && payer != Some(Payer::User(*user));
    // This is decided once for each user, who may have several sockets.
    let mut may_show: HashMap<UserId, bool> = HashMap::new();
    for Recipient { user, handle } in recipients {
        let mut is_shown = || match pair_payer.zip(user.filter(is_other)) {
            None => true,
            Some((payer, user)) => *may_show.entry(user).or_insert_with(|| limits.try_show(payer, user)),
        };
        let text = match &whole {
            Some(whole) if is_shown() => whole,
            _ => &named,
        };
        handle.send(Kind::ListEvent(item), text.clone());
    }
    whole.map_or(0, |whole| whole.get().len())
}

/// Tells sockets that a location has left their list, and disconnects those that do not soon read what they may no
/// longer see.
fn send_removal(recipients: &[Recipient], id: LocationId, reason: RemovalReason) {
    let text = Item::Deleted(id).named();
    let unread = recipients.iter().filter_map(|Recipient { handle, .. }| {
        let mark = handle.send_removal(id, text.clone(), reason)?;
        Some((handle.outbox.clone(), mark))
    });
    Outbox::withdraw(unread.collect());
}

/// Counts the sockets that the author of a change of lists pays for: at most [`PAID_SOCKETS`] of one user.
fn paid_sockets(recipients: &[Recipient]) -> usize {
    let mut counts: HashMap<Option<UserId>, usize> = HashMap::new();
    let is_paid = |recipient: &&Recipient| {
        let count = counts.entry(recipient.user).or_default();
        *count += 1;
        // Sockets in open mode may have no user, so each of these counts.
        recipient.user.is_none() || *count <= PAID_SOCKETS
    };
    recipients.iter().filter(is_paid).count()
}

/// Sends a notification, which was stored, to the connected sockets of its recipients.
pub fn send_notification(directory: &Directory, addressed: &AddressedNotice) {
    let notice = &addressed.notice;
    let sockets = addressed.recipients.iter().map(|(user, id)| (*id, directory.sockets_of(*user)));
    let recipients: Vec<_> = sockets.filter(|(_, sockets)| !sockets.is_empty()).collect();
    if recipients.is_empty() {
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
    for (id, sockets) in recipients {
        // Each user has an id of their own for it; the rest is written once for all.
        let text = [r#"{"id":"#, itoa::Buffer::new().format::<u64>(id), ",", &rest.get()[1..]].concat();
        let Some(text) = json(text) else { return };
        for handle in sockets {
            handle.send(Kind::Event("notification"), text.clone());
        }
    }
}

/// Takes text that was made of JSON. If it were not JSON, the event loop would go on all the same for the rooms.
fn json(text: String) -> Option<Arc<RawValue>> {
    let checked = RawValue::from_string(text);
    checked.inspect_err(|error| error!(%error, "an event that is not JSON was left out")).ok().map(Arc::from)
}
