//! Tests of the queue: the events that wait, and those that give way.

use serde_json::json;

use super::{super::queued::body, *};

fn id(number: u64) -> LocationId {
    LocationId::new(number).unwrap()
}

fn listed(item: Item, padding: usize) -> Queued {
    let shown = json!({"action": item.action(), "location": "x".repeat(padding)});
    let event = match item {
        Item::Deleted(_) => item.named(),
        _ => body(&shown),
    };
    Queued { kind: Kind::ListEvent(item), body: event }
}

fn other() -> Queued {
    Queued { kind: Kind::Event("notification"), body: body("x") }
}

/// Takes everything, and returns the bodies in their order.
fn sent(queue: &mut Queue) -> Vec<String> {
    let sent = std::iter::from_fn(|| queue.pop().map(|(_, waiting)| waiting.body.get().to_owned()));
    let sent = sent.collect();
    assert_eq!((queue.bytes(), queue.list_events.len()), (0, 0));
    sent
}

#[test]
fn one_list_event_waits_per_location_and_tells_what_the_client_does_not_know() {
    use Item::{Created, Deleted, Updated};
    let one = id(1);
    let (create, update) = (Created(one, 1), Updated(one, 2));
    let named = Deleted(one).named().get().to_owned();
    let shows = |action: &str| format!(r#"{{"action":"{action}","location":"x"}}"#);
    for (told, wanted) in [
        (vec![create], shows("create")),
        (vec![create, update], shows("create")),
        (vec![create, update, update], shows("create")),
        (vec![update, update], shows("update")),
        (vec![update, Deleted(one)], named.clone()),
        (vec![create, Deleted(one)], named.clone()),
        (vec![Deleted(one), create], shows("create")),
        (vec![create, update, Deleted(one), create, update], shows("create")),
    ] {
        let mut queue = Queue::default();
        for item in &told {
            queue.push(listed(*item, 1)).unwrap();
        }
        assert_eq!(sent(&mut queue), [wanted], "{told:?}");
    }
}

#[test]
fn list_events_never_end_a_connection_and_leave_room_for_others() {
    let mut queue = Queue::default();
    queue.push(other()).unwrap();
    let push = |number| queue.push(listed(Item::Created(id(number), 1), 15_000)).unwrap();
    let dropped = (1..=3 * MAX_LISTED as u64).map(push).filter(|has_dropped| *has_dropped).count();
    assert_eq!((queue.list_events.len(), dropped), (MAX_LISTED, 2 * MAX_LISTED));
    // Beyond the bound events only name their location.
    assert!(queue.bytes() < MAX_LIST_BYTES + MAX_LISTED * 100, "{}", queue.bytes());
    for _ in 1..MAX_QUEUED {
        queue.push(other()).unwrap();
    }
    assert_eq!(queue.push(other()), Err(TooMuchWaits));
    queue.push(listed(Item::Deleted(id(3 * MAX_LISTED as u64)), 0)).unwrap();
    let sent = sent(&mut queue);
    assert_eq!(sent.len(), MAX_LISTED + MAX_QUEUED);
    assert_eq!(
        (&*sent[0], sent[1].contains("2049"), sent.last().unwrap().contains("delete")),
        ("\"x\"", true, true)
    );
}

#[test]
fn events_about_hidden_items_are_dropped_and_removals_stay() {
    let mut queue = Queue::default();
    for item in [Item::Created(id(1), 1), Item::Deleted(id(2)), Item::Updated(id(3), 4)] {
        queue.push(listed(item, 1)).unwrap();
    }
    queue.push(Queued { kind: Kind::UserList, body: body("users") }).unwrap();
    queue.push(other()).unwrap();
    queue.retain(|waiting| waiting.topic().is_none());
    assert_eq!(sent(&mut queue), [r#"{"action":"delete","locationId":2}"#, "\"x\""]);
}

#[test]
fn a_list_event_without_room_is_dropped_alone() {
    let mut queue = Queue::default();
    queue.push(other()).unwrap();
    queue.push(listed(Item::Updated(id(1), 1), 1)).unwrap();
    queue.drop_newest();
    assert_eq!(sent(&mut queue), ["\"x\""]);
}
