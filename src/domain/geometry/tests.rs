//! Geometries that are accepted. Those that are refused stand in `tests/cases/`; `location/tests.rs` decodes them.

use serde_json::{Value, json};

use super::*;
use crate::domain::cases::{POINT, bodies::nested, rfc7946};

fn parse(geometry: &str) -> Result<Geometry> {
    let value: Value = serde_json::from_str(geometry).expect(geometry);
    Geometry::from_json(&value, &Path::Member(&Path::Root, "geometry"))
}

#[test]
fn a_geometry_may_be_as_large_and_as_deep_as_the_limits() {
    let points = vec!["[1,2]"; MAX_POSITIONS].join(",");
    assert!(parse(&format!(r#"{{"type":"LineString","coordinates":[{points}]}}"#)).is_ok());
    // A body nests at most 127 levels, which the parser of JSON sees to.
    let collections = nested(r#"{"type":"GeometryCollection","geometries":["#, POINT, "]}", 60);
    assert!(parse(&collections).is_ok());
}

#[test]
fn what_only_looks_wrong_is_accepted_and_kept() {
    for geometry in [
        // The ends of the world.
        r#"{"type":"MultiPoint","coordinates":[[-180.0,-90.0],[180.0,90.0]]}"#,
        // A clockwise ring that crosses itself: RFC 7946 §3.1.6 asks parsers not to refuse it.
        r#"{"type":"Polygon","coordinates":[[[0.0,0.0],[1.0,1.0],[1.0,0.0],[0.0,1.0],[0.0,0.0]]]}"#,
        // A line that goes nowhere.
        r#"{"type":"LineString","coordinates":[[1.0,2.0],[1.0,2.0]]}"#,
        // Altitudes for some positions only.
        r#"{"type":"MultiPoint","coordinates":[[1.0,2.0],[1.0,2.0,-0.5],[1.0,2.0]]}"#,
    ] {
        assert_eq!(parse(geometry).expect(geometry).to_json(), geometry);
    }
    for (geometry, kept) in [
        (
            r#"{"coordinates":[1.8E+2,-9e1],"type":"Point","bbox":0}"#,
            r#"{"type":"Point","coordinates":[180.0,-90.0]}"#,
        ),
        (
            r#"{"type":"Polygon","coordinates":[[[0,0],[1,0],[1,1],[-0.0,0.0]]]}"#,
            r#"{"type":"Polygon","coordinates":[[[0.0,0.0],[1.0,0.0],[1.0,1.0],[-0.0,0.0]]]}"#,
        ),
    ] {
        assert_eq!(parse(geometry).expect(geometry).to_json(), kept);
    }
}

#[test]
fn longitudes_wrap_within_one_turn() {
    for (lon, wrapped) in [
        (0.0, Some(0.0)),
        (180.0, Some(180.0)),
        (-180.0, Some(-180.0)),
        (190.0, Some(-170.0)),
        (-190.0, Some(170.0)),
        (540.0, Some(180.0)),
        (540.5, None),
        (-541.0, None),
    ] {
        assert_eq!(wrap_longitude(lon), wrapped, "{lon}");
    }
}

#[test]
fn every_geometry_of_the_rfc_comes_back_identical() {
    for (section, geometry) in rfc7946::geometries() {
        let parsed = Geometry::from_json(&geometry, &Path::Root).expect(section);
        let kept = Geometry::from_parts(&parsed.plane(), parsed.altitudes().as_deref());
        assert_eq!(kept, parsed, "{section}");
        let mut written: Value = serde_json::from_str(&kept.to_json()).expect(section);
        let mut sent = geometry;
        // 183 and 183.0 are the same number.
        [&mut written, &mut sent].into_iter().for_each(to_doubles);
        assert_eq!(written, sent, "{section}");
    }
}

fn to_doubles(value: &mut Value) {
    match value {
        Value::Number(number) => *value = json!(number.as_f64()),
        Value::Array(items) => items.iter_mut().for_each(to_doubles),
        Value::Object(members) => members.values_mut().for_each(to_doubles),
        _ => {}
    }
}
