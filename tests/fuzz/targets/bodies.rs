//! Whatever is sent as a body is refused with a code and a place, or means what it says.

#![no_main]

mod doc;

use doc::Doc;
use georoom::domain::{
    access::Role,
    error::{Code, Error},
    geometry::Geometry,
    id::{LocationId, MAX_SAFE_INTEGER},
    location::{Location, NewLocation, Update},
    share::NewShare,
    time::Timestamp,
};

/// 2026-11-21T00:00:00Z
const NOW_MS: i64 = 1_795_219_200_000;
const MONTH_MS: i64 = 30 * 24 * 60 * 60 * 1_000;
/// What the server writes into `properties` itself.
const RESERVED: [&str; 5] = ["version", "userId", "updatedBy", "createdAt", "updatedAt"];
/// What is there to be updated.
const OLD: &[u8] =
    br#"{"geometry":{"type":"Point","coordinates":[1,2,3]},"properties":{"a":1,"b":{"c":[1],"d":null}}}"#;

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    let doc = Doc::parse(body);
    let now = Timestamp::from_millis(NOW_MS);
    match NewLocation::from_body(body, None) {
        Ok(new) => created(&new, accepted(&doc), now),
        Err(error) => refused(&error, &doc),
    }
    for path in [None, LocationId::new(7)] {
        match Update::from_body(body, path, None) {
            Ok(update) => updated(&update, accepted(&doc), path, now),
            Err(error) => refused(&error, &doc),
        }
    }
    match NewShare::from_body(body, now) {
        Ok(new) => {
            let doc = accepted(&doc);
            assert!((NOW_MS + 1..=NOW_MS + MONTH_MS).contains(&new.expires_at.as_millis()));
            assert_eq!(new.label.as_deref(), doc.get("label").and_then(Doc::as_str));
            assert_eq!(new.password.as_deref(), doc.get("password").and_then(Doc::as_str));
            assert!(new.label.is_none_or(|label| label.chars().count() <= 255));
            assert!(new.password.is_none_or(|password| (1..=1024).contains(&password.len())));
        }
        Err(error) => refused(&error, &doc),
    }
    match Role::from_body(body) {
        Ok(role) => {
            assert!(matches!(role, Role::Viewer | Role::Editor));
            assert_eq!(accepted(&doc).get("role").and_then(Doc::as_str), Some(role.as_str()));
        }
        Err(error) => refused(&error, &doc),
    }
});

fn accepted(doc: &Option<Doc>) -> &Doc {
    let doc = doc.as_ref().expect("only JSON is accepted");
    assert!(!doc.repeats(), "nothing that is there twice is accepted");
    doc
}

fn refused(error: &Error, doc: &Option<Doc>) {
    assert!((1..=400).contains(&error.detail.chars().count()), "{error}");
    assert_eq!(error.code == Code::InvalidJson, doc.is_none(), "{error}");
    let Some(doc) = doc else { return };
    // Every other code of bodies is a 422, which points.
    let pointer = error.pointer.as_deref().unwrap_or_else(|| panic!("{error}: no pointer"));
    let is_missing = doc.members().is_some() && doc.get(pointer.trim_start_matches('/')).is_none();
    let may_be_missing = match error.code {
        Code::GeometryRequired => pointer == "/geometry",
        Code::InvalidId => pointer == "/id",
        Code::InvalidExpiresAt => pointer == "/expiresAt",
        Code::InvalidMember => pointer == "/role",
        _ => false,
    };
    assert!(doc.has(pointer) || is_missing && may_be_missing, "{error}: nothing is at {pointer}");
}

fn created(new: &NewLocation, doc: &Doc, now: Timestamp) {
    assert_eq!(new.owner.get(), doc.get("userId").map_or(1, |user| user.as_id().expect("an id")));
    has_none_of(doc, ["coordinates", "geometries", "features"]);
    assert!(new.owner.get() <= MAX_SAFE_INTEGER);
    as_sent(&new.geometry, doc.get("geometry").expect("a geometry"));
    let location = new.to_location(LocationId::new(MAX_SAFE_INTEGER).expect("an id"), now);
    let own = shown(&location);
    let sent = doc.get("properties").and_then(Doc::members).unwrap_or_default().iter();
    let sent: Vec<_> = sent.filter(|member| !RESERVED.contains(&member.0.as_str())).cloned().collect();
    assert_eq!(own, sent);
    let again = NewLocation::from_body(location.to_feature().as_bytes(), None).expect("what was shown");
    assert_eq!(again.geometry.to_json(), new.geometry.to_json());
    assert_eq!(again.properties, new.properties);
}

fn updated(update: &Update, doc: &Doc, path: Option<LocationId>, now: Timestamp) {
    // A text that names no location is an id of another tool, if the path has the location's.
    let is_foreign = |id: &&Doc| {
        let names_one = id.as_id().is_some_and(|id| LocationId::new(id).is_some());
        path.is_some() && id.as_str().is_some() && !names_one
    };
    let said = doc.get("id").filter(|id| !is_foreign(id)).map(|id| id.as_id().expect("an id"));
    assert_eq!(Some(update.id.get()), said.or(path.map(LocationId::get)));
    has_none_of(doc, ["coordinates", "geometries", "features"]);
    assert!((1..=MAX_SAFE_INTEGER).contains(&update.id.get()));
    assert!(update.by.user().get() <= MAX_SAFE_INTEGER);
    assert!(update.geometry.is_some() || update.patch.is_some());
    let old = NewLocation::from_body(OLD, None).expect("a location").to_location(update.id, now);
    let new = match old.updated(update, now) {
        Ok(new) => new,
        Err(error) => {
            assert_eq!(error.code, Code::PropertiesTooLarge);
            return refused(&error, &Some(doc.clone()));
        }
    };
    assert_eq!(new.version, 2);
    match doc.get("geometry") {
        Some(sent) => as_sent(&new.geometry, sent),
        None => assert_eq!(new.geometry, old.geometry),
    }
    let mut patch = doc.get("properties").cloned().unwrap_or(Doc::Null);
    match &mut patch {
        Doc::Object(members) => members.retain(|member| !RESERVED.contains(&member.0.as_str())),
        _ => patch = Doc::Object(Vec::new()),
    }
    let merged = Doc::Object(shown(&new));
    assert!(merged.same(&Doc::Object(shown(&old)).merged(&patch)), "{patch:?} made {merged:?}");
}

/// The caller's properties in the Feature, which must be one of RFC 7946.
fn shown(location: &Location) -> Vec<(String, Doc)> {
    let feature = Doc::parse(location.to_feature().as_bytes()).expect("JSON");
    assert!(!feature.repeats());
    assert_eq!(feature.get("type"), Some(&Doc::text("Feature")));
    assert_eq!(feature.get("id").and_then(Doc::as_u64), Some(location.id.get()));
    as_sent(&location.geometry, feature.get("geometry").expect("a geometry"));
    let mut own = feature.get("properties").and_then(Doc::members).expect("an object").to_vec();
    let servers = own.split_off(own.len() - RESERVED.len());
    assert!(servers.iter().map(|member| member.0.as_str()).eq(RESERVED));

    let near = location.to_feature_at(0.5).expect("a Feature");
    let near = Doc::parse(near.as_bytes()).expect("JSON");
    assert!(!near.repeats());
    assert_eq!(near.get("properties").and_then(|own| own.get("distance")?.as_f64()), Some(0.5));
    own
}

/// Nothing but the type and the positions, these bit for bit; also by way of the database.
fn as_sent(geometry: &Geometry, sent: &Doc) {
    let text = geometry.to_json();
    let kept = Doc::parse(text.as_bytes()).expect("JSON");
    same_geometry(&kept, sent);
    text.parse::<geojson::Geometry>().expect("a geometry by RFC 7946");
    let stored = Geometry::from_parts(&geometry.plane(), geometry.altitudes().as_deref());
    assert_eq!(stored.to_json(), text);
}

/// RFC 7946 §7.1: no member of another kind of object.
fn has_none_of(doc: &Doc, names: [&str; 3]) {
    assert!(names.iter().all(|name| doc.get(name).is_none()), "{doc:?}");
}

fn same_geometry(kept: &Doc, sent: &Doc) {
    has_none_of(sent, ["geometry", "properties", "features"]);
    assert_eq!(kept.members().map(<[_]>::len), Some(2));
    assert_eq!(kept.get("type"), sent.get("type"));
    match (kept.get("geometries"), sent.get("geometries")) {
        (Some(Doc::Array(kept)), Some(Doc::Array(sent))) => {
            assert_eq!(kept.len(), sent.len());
            kept.iter().zip(sent).for_each(|(kept, sent)| same_geometry(kept, sent));
        }
        _ => same_numbers(
            kept.get("coordinates").expect("coordinates"),
            sent.get("coordinates").expect("coordinates"),
        ),
    }
}

fn same_numbers(kept: &Doc, sent: &Doc) {
    match (kept, sent) {
        (Doc::Array(kept), Doc::Array(sent)) => {
            assert_eq!(kept.len(), sent.len());
            kept.iter().zip(sent).for_each(|(kept, sent)| same_numbers(kept, sent));
        }
        _ => {
            let (kept, sent) = (kept.as_f64().expect("a number"), sent.as_f64().expect("a number"));
            assert_eq!(kept.to_bits(), sent.to_bits());
        }
    }
}
