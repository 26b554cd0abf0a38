//! Whatever arrives as a packet is refused with a code, or comes to just what it says.

#![no_main]

mod doc;

use doc::Doc;
use georoom::{
    domain::{error::Code, id::MAX_SAFE_INTEGER},
    gateway::fuzz,
};
use socketioxide_core::{
    Str,
    packet::PacketData,
    parser::{Parse, ParseConfig, ParseError, ParserState},
};
use socketioxide_parser_common::CommonParser;

libfuzzer_sys::fuzz_target!(|packet: &str| {
    let (config, state) = (ParseConfig::default(), ParserState::default());
    let mut packet = CommonParser.decode_str(&config, &state, Str::from(packet.to_owned()));
    for _ in 0..3 {
        if let Err(ParseError::NeedsMoreBinaryData) = packet {
            packet = CommonParser.decode_bin(&config, &state, "bytes".into());
        }
    }
    let (mut event, is_binary) = match packet.map(|packet| packet.inner) {
        Ok(PacketData::Event(event, _)) => (event, false),
        Ok(PacketData::BinaryEvent(event, _)) => (event, true),
        _ => return,
    };
    let doc = event.as_str().and_then(|text| Doc::parse(text.as_bytes()));
    let read = match fuzz::read(&mut event) {
        Ok(read) => Doc::parse(read.as_bytes()).expect("JSON"),
        Err(error) => {
            let codes = [Code::InvalidPayload, Code::MessageTooLarge, Code::UnknownEvent];
            assert!(codes.contains(&error.code), "{error}");
            return assert!((1..=400).contains(&error.detail.chars().count()), "{error}");
        }
    };
    // What only begins as JSON, or says a thing twice, is somebody else's to judge.
    let Some(doc) = doc.filter(|doc| !is_binary && !doc.repeats()) else { return };
    let Some([Doc::Text(name), payload, ..]) = doc.items() else { panic!("{doc:?} came to {read:?}") };
    match name.as_str() {
        "join_room" => {
            assert_eq!(id(read.get("locationId")), id(payload.get("locationId")));
            assert_eq!(user(read.get("userId")), user(payload.get("userId")));
            assert_eq!(since(read.get("since")), since(payload.get("since")));
        }
        "leave_room" => assert_eq!(id(read.get("locationId")), id(payload.get("locationId"))),
        "chat" => {
            let Some([user, message, room]) = read.members() else { panic!("{read:?}") };
            assert_eq!(
                (user.0.as_str(), message.0.as_str(), room.0.as_str()),
                ("userId", "message", "roomName")
            );
            assert_eq!(user.1, Doc::Unsigned(1));
            assert_eq!(Some(&message.1), payload.get("message"));
            assert_eq!(room.1, Doc::Text(id(payload.get("roomName")).to_string()));
        }
        "join" => {
            assert!(user(read.get("userId")).is_some());
            assert_eq!(user(read.get("userId")), user(payload.get("userId")));
            let name = payload.get("userName").unwrap_or(&Doc::Null);
            match (read.get("userName"), name) {
                (Some(Doc::Null), Doc::Null) => {}
                (Some(Doc::Null), Doc::Text(said)) => {
                    assert!(said.chars().all(|c| c.is_control() || c.is_whitespace()));
                }
                (Some(Doc::Text(kept)), Doc::Text(said)) => {
                    let printable: String = said.chars().filter(|c| !c.is_control()).collect();
                    assert_eq!(kept, printable.trim());
                    assert!((1..=255).contains(&kept.chars().count()));
                }
                other => panic!("{other:?}"),
            }
        }
        "presence" => assert_eq!(id(read.get("locationId")), id(payload.get("locationId"))),
        "authenticate" => assert_eq!(read.get("token"), payload.get("token")),
        _ => panic!("`{name}` is no event, and came to {read:?}"),
    }
});

/// A location's id as a number or in decimal, which is its only name.
fn id(value: Option<&Doc>) -> u64 {
    let id = value.and_then(Doc::as_id).expect("an id");
    assert!((1..=MAX_SAFE_INTEGER).contains(&id));
    id
}

/// A user's id, if there is one.
fn user(value: Option<&Doc>) -> Option<u64> {
    let id = value.filter(|value| **value != Doc::Null)?.as_id().expect("an id");
    assert!(id <= MAX_SAFE_INTEGER);
    Some(id)
}

/// A version, if there is one: never text.
fn since(value: Option<&Doc>) -> Option<u64> {
    let version = value.filter(|value| **value != Doc::Null)?.as_u64().expect("an integer");
    assert!(version <= MAX_SAFE_INTEGER);
    Some(version)
}
