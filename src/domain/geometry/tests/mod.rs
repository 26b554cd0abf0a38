//! Tables of geometries that are refused, and of those that only look wrong.

mod rfc7946;

use serde_json::Value;

use super::*;

const POINT: &str = r#"{"type":"Point","coordinates":[13.4,52.5]}"#;

/// A geometry that is refused.
struct Row {
    geometry: String,
    code: Code,
    pointer: String,
    /// A text that must be in the detail; after a `!`, a text that must not.
    says: &'static str,
}

#[derive(Default)]
struct Table(Vec<Row>);

impl Table {
    fn geometry(&mut self, geometry: impl Into<String>, code: Code, pointer: &str) {
        self.0.push(Row { geometry: geometry.into(), code, pointer: pointer.to_owned(), says: "" });
    }

    /// A geometry that has coordinates.
    fn coordinates(&mut self, kind: &str, coordinates: &str, code: Code, pointer: &str) {
        let geometry = format!(r#"{{"type":"{kind}","coordinates":{coordinates}}}"#);
        self.geometry(geometry, code, &format!("/coordinates{pointer}"));
    }

    /// Sets what the details of the rows since `from` must say.
    fn says(&mut self, from: usize, words: &'static str) {
        self.0[from..].iter_mut().for_each(|row| row.says = words);
    }

    fn check(&self) {
        for Row { geometry, code, pointer, says } in &self.0 {
            let error = parse(geometry).expect_err(geometry);
            let found = (error.code, error.pointer.as_deref());
            assert_eq!(found, (*code, Some(&*format!("/geometry{pointer}"))), "{geometry:.200}");
            let is_said = |words: &str| error.detail.contains(words);
            assert!(says.strip_prefix('!').map_or_else(|| is_said(says), |words| !is_said(words)), "{error}");
        }
    }
}

fn parse(geometry: &str) -> Result<Geometry> {
    let value: Value = serde_json::from_str(geometry).expect(geometry);
    Geometry::from_json(&value, &Path::Member(&Path::Root, "geometry"))
}

#[test]
fn an_object_that_is_no_geometry_is_refused() {
    let mut table = Table::default();
    use Code::{InvalidCoordinates, InvalidGeometry, UnknownGeometryType};

    for kind in ["", "Circle", "point", "POINT", "Point ", "Feature", "FeatureCollection", "LinearRing"] {
        let geometry = format!(r#"{{"type":"{kind}","coordinates":[1,2]}}"#);
        table.geometry(geometry, UnknownGeometryType, "/type");
    }
    table.geometry("{}", InvalidGeometry, "");
    table.geometry(r#"{"coordinates":[1,2]}"#, InvalidGeometry, "");
    for kind in ["null", "1", "[\"Point\"]"] {
        let geometry = format!(r#"{{"type":{kind},"coordinates":[1,2]}}"#);
        table.geometry(geometry, InvalidGeometry, "/type");
    }
    for kind in ["Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon"] {
        let geometry = format!(r#"{{"type":"{kind}","geometries":[{POINT}]}}"#);
        table.geometry(geometry, InvalidGeometry, "");
        for coordinates in ["null", r#"{"0":1,"1":2}"#, r#""1,2""#, "1", "true"] {
            table.coordinates(kind, coordinates, InvalidCoordinates, "");
        }
    }
    let collection = |geometries: &str| format!(r#"{{"type":"GeometryCollection",{geometries}}}"#);
    let geometry = collection(r#""coordinates":[1,2]"#);
    table.geometry(geometry, InvalidGeometry, "");
    for geometries in ["null", POINT, r#""Point""#, "1"] {
        let geometry = collection(&format!(r#""geometries":{geometries}"#));
        table.geometry(geometry, InvalidCoordinates, "/geometries");
    }
    for part in ["null", "[1,2]", r#""Point""#, "[]", "{}"] {
        let geometry = collection(&format!(r#""geometries":[{POINT},{part}]"#));
        table.geometry(geometry, InvalidGeometry, "/geometries/1");
    }
    // RFC 7946 §7.1; a geometry and a collection at once.
    for name in ["geometry", "properties", "features", "geometries"] {
        let geometry = format!(r#"{{"type":"Point","coordinates":[1,2],"{name}":null}}"#);
        let at = format!("/{name}");
        table.geometry(&geometry, InvalidGeometry, &at);
        let part = collection(&format!(r#""geometries":[{POINT},{geometry}]"#));
        let at = format!("/geometries/1/{name}");
        table.geometry(part, InvalidGeometry, &at);
    }
    for name in ["geometry", "properties", "features", "coordinates"] {
        let geometry = collection(&format!(r#""geometries":[{POINT}],"{name}":{{"a":1}}"#));
        let at = format!("/{name}");
        table.geometry(geometry, InvalidGeometry, &at);
    }
    let geometry = collection(&format!(r#""geometries":[{{"type":"Feature","geometry":{POINT}}}]"#));
    table.geometry(geometry, UnknownGeometryType, "/geometries/0/type");
    table.check();
}

#[test]
fn a_position_is_two_or_three_numbers_at_the_right_depth() {
    let mut table = Table::default();
    use Code::{EmptyGeometry, InvalidCoordinates, InvalidPosition};

    for position in ["[]", "[1]", "[1,2,3,4]", "[1,2,3,4,5,6,7,8]"] {
        table.coordinates("Point", position, InvalidPosition, "");
        table.coordinates("MultiPoint", &format!("[[1,2],{position}]"), InvalidPosition, "/1");
        let ring = format!("[[[0,0],[1,0],{position},[0,0]]]");
        table.coordinates("Polygon", &ring, InvalidPosition, "/0/2");
    }
    for (position, at) in [
        (r#"["1",2]"#, 0),
        (r#"[1,"2"]"#, 1),
        (r#"[1,2,"3"]"#, 2),
        ("[null,2]", 0),
        ("[1,null]", 1),
        ("[1,2,null]", 2),
        ("[true,2]", 0),
        ("[1,2,false]", 2),
        ("[1,[2]]", 1),
        ("[1,2,[3]]", 2),
        ("[1,{}]", 1),
    ] {
        table.coordinates("Point", position, InvalidPosition, &format!("/{at}"));
        let line = format!("[[1,2],{position}]");
        table.coordinates("LineString", &line, InvalidPosition, &format!("/1/{at}"));
    }

    // One level too few, one too many.
    table.coordinates("Point", "[[1,2]]", InvalidPosition, "");
    table.coordinates("MultiPoint", "[1,2]", InvalidCoordinates, "/0");
    table.coordinates("MultiPoint", "[[[1,2],[3,4]]]", InvalidPosition, "/0/0");
    table.coordinates("LineString", "[1,2]", InvalidCoordinates, "/0");
    table.coordinates("LineString", "[[[1,2],[3,4]]]", InvalidPosition, "/0/0");
    table.coordinates("MultiLineString", "[[1,2],[3,4]]", InvalidCoordinates, "/0/0");
    table.coordinates("MultiLineString", "[[[[1,2],[3,4]]]]", InvalidPosition, "/0/0/0");
    table.coordinates("Polygon", "[[0,0],[1,0],[1,1],[0,0]]", InvalidCoordinates, "/0/0");
    table.coordinates("Polygon", "[[[[0,0],[1,0],[1,1],[0,0]]]]", InvalidPosition, "/0/0");
    table.coordinates("MultiPolygon", "[[[0,0],[1,0],[1,1],[0,0]]]", InvalidCoordinates, "/0/0/0");
    table.coordinates("MultiPolygon", "[[[[[0,0],[1,0]]]]]", InvalidPosition, "/0/0/0/0");
    table.coordinates("MultiPoint", r#"[[1,2],"3,4"]"#, InvalidCoordinates, "/1");
    table.coordinates("MultiLineString", "[[[1,2],[3,4]],null]", InvalidCoordinates, "/1");
    let nested = format!(r#"{{"type":"GeometryCollection","geometries":[[{POINT}]]}}"#);
    table.geometry(nested, Code::InvalidGeometry, "/geometries/0");

    for (kind, coordinates, at) in [
        ("MultiPoint", "[]", ""),
        ("LineString", "[]", ""),
        ("MultiLineString", "[]", ""),
        ("MultiLineString", "[[]]", "/0"),
        ("MultiLineString", "[[[1,2],[3,4]],[]]", "/1"),
        ("Polygon", "[]", ""),
        ("Polygon", "[[]]", "/0"),
        ("MultiPolygon", "[]", ""),
        ("MultiPolygon", "[[]]", "/0"),
        ("MultiPolygon", "[[[]]]", "/0/0"),
    ] {
        table.coordinates(kind, coordinates, EmptyGeometry, at);
    }
    table.coordinates("MultiPoint", "[[]]", InvalidPosition, "/0");
    let empty = r#"{"type":"GeometryCollection","geometries":[]}"#;
    table.geometry(empty, EmptyGeometry, "/geometries");
    let nested = format!(r#"{{"type":"GeometryCollection","geometries":[{POINT},{empty}]}}"#);
    table.geometry(nested, EmptyGeometry, "/geometries/1/geometries");
    table.check();
}

#[test]
fn lines_are_long_enough_and_rings_are_closed() {
    let mut table = Table::default();
    use Code::{LineTooShort, RingNotClosed, RingTooShort};
    const SQUARE: &str = "[[0,0],[9,0],[9,9],[0,9],[0,0]]";

    table.coordinates("LineString", "[[1,2]]", LineTooShort, "");
    table.coordinates("MultiLineString", "[[[1,2],[3,4]],[[1,2]]]", LineTooShort, "/1");
    table.coordinates("Polygon", "[[[0,0]]]", RingTooShort, "/0");
    table.coordinates("Polygon", "[[[0,0],[1,1],[0,0]]]", RingTooShort, "/0");
    table.coordinates("Polygon", "[[[0,0],[1,0],[1,1]]]", RingTooShort, "/0");
    table.coordinates("Polygon", "[[[0,0],[1,0],[1,1],[0,1]]]", RingNotClosed, "/0");
    table.coordinates("Polygon", "[[[0,0],[1,0],[1,1],[0,1e-9]]]", RingNotClosed, "/0");
    table.coordinates("Polygon", "[[[0,0,1],[1,0,1],[1,1,1],[0,0,2]]]", RingNotClosed, "/0");
    table.coordinates("Polygon", "[[[0,0,0],[1,0,0],[1,1,0],[0,0]]]", RingNotClosed, "/0");
    let hole = |ring: &str| format!("[{SQUARE},[[1,1],[1,2],[2,2],[1,1]],{ring}]");
    table.coordinates("Polygon", &hole("[[3,3],[3,4],[3,3]]"), RingTooShort, "/2");
    table.coordinates("Polygon", &hole("[[3,3],[3,4],[4,4],[4,3]]"), RingNotClosed, "/2");
    let second = |rings: &str| format!("[[{SQUARE}],[{rings}]]");
    table.coordinates("MultiPolygon", &second("[[0,0],[1,0],[1,1],[0,1]]"), RingNotClosed, "/1/0");
    table.coordinates(
        "MultiPolygon",
        &second(&format!("{SQUARE},[[1,1],[2,2],[1,1]]")),
        RingTooShort,
        "/1/1",
    );
    table.coordinates(
        "MultiPolygon",
        &second("[[0,0],[1,0],[1,91],[0,0]]"),
        Code::LatitudeOutOfRange,
        "/1/0/2/1",
    );
    let inside = |part: &str| {
        let collection = format!(r#"{{"type":"GeometryCollection","geometries":[{part}]}}"#);
        format!(r#"{{"type":"GeometryCollection","geometries":[{POINT},{collection}]}}"#)
    };
    let at = "/geometries/1/geometries/0/coordinates";
    table.geometry(
        inside(r#"{"type":"Polygon","coordinates":[[[0,0],[1,0],[1,1],[0,1]]]}"#),
        RingNotClosed,
        &format!("{at}/0"),
    );
    table.geometry(inside(r#"{"type":"LineString","coordinates":[[0,0]]}"#), LineTooShort, at);
    table.geometry(
        inside(r#"{"type":"MultiPoint","coordinates":[[0,0],[-181,0]]}"#),
        Code::LongitudeOutOfRange,
        &format!("{at}/1/0"),
    );
    table.check();
}

#[test]
fn longitudes_and_latitudes_are_in_range_and_hints_are_given() {
    let mut table = Table::default();
    use Code::{LatitudeOutOfRange, LongitudeOutOfRange};

    let from = table.0.len();
    for lon in ["180.0000001", "-180.0000001", "200", "-1e308", "18446744073709551616"] {
        table.coordinates("Point", &format!("[{lon},0]"), LongitudeOutOfRange, "/0");
    }
    for lat in ["180.0000001", "-181", "1e308", "-9223372036854775809"] {
        table.coordinates("Point", &format!("[0,{lat}]"), LatitudeOutOfRange, "/1");
    }
    // Wrong either way round.
    table.coordinates("Point", "[100,100]", LatitudeOutOfRange, "/1");
    table.coordinates("Point", "[90.0000001,120]", LatitudeOutOfRange, "/1");
    table.coordinates("Point", "[200,20]", LongitudeOutOfRange, "/0");
    table.coordinates("LineString", "[[1,2],[181,91]]", LongitudeOutOfRange, "/1/0");
    table.says(from, "!swapped");

    let from = table.0.len();
    for lon in ["190", "-180.5", "540", "-540"] {
        table.coordinates("Point", &format!("[{lon},0]"), LongitudeOutOfRange, "/0");
    }
    table.says(from, "scrolled around the world");
    let from = table.0.len();
    table.coordinates("Point", "[540.5,0]", LongitudeOutOfRange, "/0");
    table.says(from, "!scrolled");

    let from = table.0.len();
    table.coordinates("Point", "[0,90.0000001]", LatitudeOutOfRange, "/1");
    table.coordinates("Point", "[0,-90.0000001]", LatitudeOutOfRange, "/1");
    table.coordinates("Point", "[52.5,113.4]", LatitudeOutOfRange, "/1");
    table.coordinates("Point", "[-33.9,151.2,5]", LatitudeOutOfRange, "/1");
    table.coordinates("Point", "[90,180]", LatitudeOutOfRange, "/1");
    table.coordinates("LineString", "[[35.6,39.7],[35.7,139.7]]", LatitudeOutOfRange, "/1/1");
    table.coordinates("Polygon", "[[[0,0],[1,0],[-37.8,144.9],[0,0]]]", LatitudeOutOfRange, "/0/2/1");
    table.says(from, "swapped");
    table.check();
}

#[test]
fn a_geometry_has_no_member_twice_a_limit_of_positions_and_a_limit_of_depth() {
    let points = |n: usize| vec!["[1,2]"; n].join(",");
    let (a, b) = (points(30_000), points(20_001));
    let parts =
        format!(r#"{{"type":"MultiPoint","coordinates":[{a}]}},{{"type":"LineString","coordinates":[{b}]}}"#);
    let mut table = Table::default();
    table.coordinates("MultiPoint", &format!("[{}]", points(50_001)), Code::TooManyPositions, "/50000");
    table.coordinates("LineString", &format!("[{}]", points(60_000)), Code::TooManyPositions, "/50000");
    table.coordinates("MultiLineString", &format!("[[{a}],[{b}]]"), Code::TooManyPositions, "/1/20000");
    table.geometry(
        format!(r#"{{"type":"GeometryCollection","geometries":[{parts}]}}"#),
        Code::TooManyPositions,
        "/geometries/1/coordinates/20000",
    );
    table.check();
    assert!(parse(&format!(r#"{{"type":"LineString","coordinates":[{}]}}"#, points(MAX_POSITIONS))).is_ok());
    // A body nests at most 127 levels, which the parser of JSON sees to.
    let open = r#"{"type":"GeometryCollection","geometries":["#;
    assert!(parse(&format!("{}{POINT}{}", open.repeat(60), "]}".repeat(60))).is_ok());
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
