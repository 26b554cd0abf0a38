//! Bodies that are refused, and what an update makes of a location.

use serde_json::json;

use super::*;
use crate::domain::cases::{POINT, Refusals, bodies, geometries};

const ID: u64 = 7;
/// Bytes of all properties of a location together.
const PROPERTIES: usize = 64 * 1024;

fn id() -> LocationId {
    LocationId::new(ID).expect("an id")
}

fn post(body: &str) -> Result<NewLocation> {
    NewLocation::from_body(body.as_bytes(), None)
}

fn put(path_id: Option<LocationId>, body: &str) -> Result<Update> {
    Update::from_body(body.as_bytes(), path_id, None)
}

#[track_caller]
fn refused<T>(result: Result<T>, name: &str, code: Code, pointer: Option<&str>) -> String {
    let error = result.err().unwrap_or_else(|| panic!("{name} is accepted"));
    assert_eq!((error.code, error.pointer.as_deref()), (code, pointer), "{name}: {error}");
    error.detail.into_owned()
}

/// Decodes each body of a table as all requests would that the table sends it to.
#[derive(Default)]
struct Decoder {
    expected_detail: &'static str,
}

impl Decoder {
    #[track_caller]
    fn check<T>(&self, result: Result<T>, name: &str, code: Code, pointer: &str) {
        let words = self.expected_detail;
        let detail = refused(result, name, code, Some(pointer));
        let is_fine =
            words.strip_prefix('!').map_or_else(|| detail.contains(words), |words| !detail.contains(words));
        assert!(is_fine, "{name}, {words:?}: {detail}");
    }
}

impl Refusals for Decoder {
    fn not_json(&mut self, name: &str, body: impl AsRef<[u8]>) {
        let body = body.as_ref();
        refused(NewLocation::from_body(body, None), name, Code::InvalidJson, None);
        for path_id in [None, Some(id())] {
            refused(Update::from_body(body, path_id, None), name, Code::InvalidJson, None);
        }
    }

    fn post(&mut self, name: &str, body: &str, code: Code, pointer: &str) {
        self.check(post(body), name, code, pointer);
    }

    fn put_by_path(&mut self, name: &str, body: &str, code: Code, pointer: &str) {
        self.check(put(Some(id()), &body.replace("$id", &ID.to_string())), name, code, pointer);
    }

    fn put(&mut self, name: &str, body: &str, code: Code, pointer: &str) {
        self.check(put(None, &body.replace("$id", &ID.to_string())), name, code, pointer);
    }

    fn expect_detail(&mut self, words: &'static str) {
        self.expected_detail = words;
    }
}

#[test]
fn bodies_that_are_no_json_are_refused() {
    bodies::syntax(&mut Decoder::default());
}

#[test]
fn a_body_is_a_feature_or_looks_like_one() {
    bodies::top_level(&mut Decoder::default());
}

#[test]
fn members_have_their_types_and_are_there_once() {
    bodies::member_types(&mut Decoder::default());
    bodies::duplicates(&mut Decoder::default());
}

#[test]
fn an_object_that_is_no_geometry_is_refused() {
    geometries::geometry_objects(&mut Decoder::default());
}

#[test]
fn a_position_is_two_or_three_numbers_at_the_right_depth() {
    geometries::positions(&mut Decoder::default());
}

#[test]
fn lines_are_long_enough_and_rings_are_closed() {
    geometries::lines_and_rings(&mut Decoder::default());
}

#[test]
fn longitudes_and_latitudes_are_in_range_and_hints_are_given() {
    geometries::ranges(&mut Decoder::default());
}

#[test]
fn a_geometry_has_a_limit_of_positions() {
    geometries::too_many_positions(&mut Decoder::default());
}

#[test]
fn an_update_says_which_location_and_what_changes() {
    bodies::nothing_to_update(&mut Decoder::default());
    let with_id = |id: &str| format!(r#"{{"id":{id},"geometry":{POINT}}}"#);
    for other in ["8", "8.0", "\"8\"", "9007199254740991"] {
        refused(put(Some(id()), &with_id(other)), other, Code::IdMismatch, Some("/id"));
    }
    for same in ["7", "7.0", "7e0", "\"7\""] {
        assert_eq!(put(None, &with_id(same)).expect(same).id, id());
        assert_eq!(put(Some(id()), &with_id(same)).expect(same).id, id());
    }
    // Ids of other tools cannot mean another location.
    for foreign in ["\"way/1\"", "\"urn:x\"", "\"07\""] {
        assert_eq!(put(Some(id()), &with_id(foreign)).expect(foreign).id, id());
    }
}

#[test]
fn what_only_looks_bad_is_accepted() {
    let good = format!(r#"{{"geometry":{POINT}}}"#);
    for body in [
        good.clone(),
        format!("\u{feff}{good}"),
        r#"{"\u0067eometry":{"type":"\u0050oint","coordinates":[1,2]}}"#.to_owned(),
        format!(r#"{{"type":"Feature","geometry":{POINT},"properties":{{}}}}"#),
        format!(r#"{{"geometry":{POINT},"properties":null}}"#),
        format!(r#"{{"id":"f1","geometry":{POINT}}}"#),
        format!(r#"{{"geometry":{POINT},"bbox":[0,0,1,1],"more":1,"":null}}"#),
        format!(r#"{{"geometry":{POINT},"properties":{{"coordinates":[],"features":1}}}}"#),
        format!(r#"{{"geometry":{POINT},"properties":{{"a":1,"A":2}}}}"#),
    ] {
        assert_eq!(post(&body).expect(&body).size, body.len());
    }
    for (user, id) in [("0", 0), ("-0", 0), ("7.0", 7), ("\"7\"", 7), ("9007199254740991", (1 << 53) - 1)] {
        let new = post(&format!(r#"{{"userId":{user},"geometry":{POINT}}}"#)).expect(user);
        assert_eq!(new.owner.get(), id, "{user}");
    }
}

#[test]
fn a_user_id_counts_only_in_open_mode() {
    let body = format!(r#"{{"id":7,"userId":3,"geometry":{POINT}}}"#);
    let user = |id| UserId::new(id).expect("an id");
    for (by, owner) in [
        (None, 3),
        (Some(Caller::Anyone(user(5))), 3),
        (Some(Caller::User { id: user(5), is_admin: false }), 5),
        (Some(Caller::User { id: user(5), is_admin: true }), 5),
    ] {
        let new = NewLocation::from_body(body.as_bytes(), by.as_ref()).expect("accepted");
        assert_eq!(new.owner, user(owner), "{by:?}");
        let update = Update::from_body(body.as_bytes(), None, by.as_ref()).expect("accepted");
        assert_eq!(update.by.user(), user(owner), "{by:?}");
    }
}

/// A location whose properties are the text of an object with `bytes` bytes.
fn location(bytes: usize) -> Location {
    let properties = format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes - r#"{"a":""}"#.len()));
    let new = post(&format!(r#"{{"userId":3,"geometry":{POINT},"properties":{properties}}}"#));
    new.expect("accepted").to_location(id(), Timestamp::from_millis(1_000))
}

#[test]
fn a_new_location_is_version_1_and_an_update_the_next() {
    let first = location(100);
    assert_eq!((first.version, first.owner, first.updated_by), (1, first.owner, first.owner));
    assert_eq!((first.created_at, first.updated_at), (Timestamp::from_millis(1_000), first.created_at));
    let body = r#"{"userId":4,"geometry":{"type":"Point","coordinates":[1,2]},"properties":{"b":1}}"#;
    let update = put(Some(id()), body).expect("accepted");
    let second = first.updated(&update, Timestamp::from_millis(2_000)).expect("fits");
    assert_eq!((second.version, second.owner, second.created_at), (2, first.owner, first.created_at));
    assert_eq!((second.updated_by.get(), second.updated_at), (4, Timestamp::from_millis(2_000)));
    assert_eq!(second.geometry.to_json(), r#"{"type":"Point","coordinates":[1.0,2.0]}"#);
    assert_eq!(second.properties.to_members().expect("an object")["b"], 1);
    // Only properties: it stays where it is. And no clock turns it back.
    let update = put(Some(id()), r#"{"properties":{"a":null}}"#).expect("accepted");
    let third = second.updated(&update, Timestamp::from_millis(500)).expect("fits");
    assert_eq!((third.version, &third.geometry), (3, &second.geometry));
    assert_eq!(third.updated_at, second.updated_at);
    assert_eq!(third.properties.as_str(), r#"{"b":1}"#);
    assert_ne!(third, second);
    assert_eq!(third.clone(), third);
}

#[test]
fn properties_fill_64_kib_to_the_last_byte() {
    let full = location(PROPERTIES);
    let merge = |properties: Value| {
        let update = put(Some(id()), &json!({"properties": properties}).to_string()).expect("accepted");
        full.updated(&update, Timestamp::from_millis(2_000))
            .map(|location| location.properties.as_str().len())
    };
    let patch_of = |name: &str| "x".repeat(PROPERTIES - name.len() - r#"{"":""}"#.len());
    // What the server writes takes no room, nor does what a merge takes away.
    assert_eq!(merge(json!({"version": 1, "createdAt": "x"})).expect("fits"), PROPERTIES);
    assert_eq!(merge(json!({"a": null, "bb": patch_of("bb")})).expect("fits"), PROPERTIES);
    refused(merge(json!({"c": 1})), "a member more", Code::PropertiesTooLarge, Some("/properties"));
    // Bytes count, not characters: two each.
    let letters = json!({"geometry": {"type": "Point", "coordinates": [1, 2]},
        "properties": {"a": "é".repeat(PROPERTIES / 2)}});
    refused(post(&letters.to_string()), "two bytes a letter", Code::PropertiesTooLarge, Some("/properties"));
}

#[test]
fn a_feature_has_the_callers_properties_and_then_the_servers() {
    let mut location = location(20);
    let own =
        r#"{"type":"Feature","id":7,"geometry":{"type":"Point","coordinates":[13.4,52.5]},"properties":{"#;
    let server = r#""version":1,"userId":3,"updatedBy":3,"createdAt":"1970-01-01T00:00:01.000Z","updatedAt":"1970-01-01T00:00:01.000Z""#;
    let a = format!(r#""a":"{}""#, "x".repeat(12));
    assert_eq!(location.to_feature(), format!("{own}{a},{server}}}}}"));
    assert_eq!(
        location.to_feature_at(1.5).expect("an object"),
        format!(r#"{own}{a},{server},"distance":1.5}}}}"#)
    );
    location.properties = Properties::new(Map::new()).expect("empty");
    assert_eq!(location.to_feature(), format!("{own}{server}}}}}"));
    let committed = Committed::from(location);
    assert_eq!(committed.feature(), committed.to_feature());
}
