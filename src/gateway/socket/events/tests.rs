//! Payloads that are taken and refused, beside what fuzzing tries.

use super::*;

/// The name by which `serde_json` knows raw JSON inside. To everybody else it is a name like any other.
const RAW: &str = "$serde_json::private::RawValue";

fn decode_text<T: DeserializeOwned>(payload: &str) -> serde_json::Result<T> {
    serde_json::from_str::<Object<T>>(payload).map(|Object(payload)| payload)
}

#[test]
fn a_chat_is_relayed_as_it_was_sent() {
    let message = format!(r#"{{"{RAW}":"[1]"}}"#);
    let chat: Chat = decode_text(&format!(r#"{{"message":{message},"roomName":7}}"#)).unwrap();
    assert_eq!(chat.message, message);
}

#[test]
fn an_object_is_no_number_whatever_it_is_called() {
    let is_join = |id: &str, user: &str, since: &str| {
        let payload = format!(r#"{{"locationId":{id},"userId":{user},"since":{since}}}"#);
        decode_text::<JoinRoom>(&payload).is_ok()
    };
    let seven = format!(r#"{{"{RAW}":"7"}}"#);
    assert!(is_join("7", "7", "7"));
    assert!(!is_join(&seven, "7", "7") && !is_join("7", &seven, "7") && !is_join("7", "7", &seven));
}

#[test]
fn an_event_without_a_payload_is_told_from_one_with_a_bad_one() {
    assert!(has_no_payload(r#"["join_room"]"#));
    for event in [r#"["join_room",null]"#, r#"["join_room",{}]"#, r#"["join_room",7,8]"#] {
        assert!(!has_no_payload(event), "{event}");
    }
}

#[test]
fn versions_and_ids_are_integers_by_their_value() {
    let join: JoinRoom = decode_text(r#"{"locationId":7.0,"userId":"8","since":9.0}"#).unwrap();
    let ids = (join.location_id.get(), join.user_id.map(UserId::get), join.since);
    assert_eq!(ids, (7, Some(8), Some(9)));
    for since in ["9.5", "-1", "\"9\"", "true", "9007199254740992.0"] {
        let payload = format!(r#"{{"locationId":7,"since":{since}}}"#);
        assert!(decode_text::<JoinRoom>(&payload).is_err(), "{since}");
    }
}

#[test]
fn a_refusal_does_not_repeat_all_that_was_sent() {
    let payload = format!("\"{}\"", "é".repeat(MAX_CHAT_BYTES));
    let error = decode_text::<Chat>(&payload).err().unwrap();
    let error = invalid_payload(&ParserError::new(error));
    assert!(error.detail.chars().count() <= MAX_REASON, "{}", error.detail.len());
}
