//! Geometries that RFC 7946 does not allow, and coordinates out of range.

use super::{Code, POINT, Refusals};

/// Objects that are no geometry.
pub fn geometry_objects(table: &mut impl Refusals) {
    use Code::{InvalidCoordinates, InvalidGeometry, UnknownGeometryType};

    for kind in ["", "Circle", "point", "POINT", "Point ", "Feature", "FeatureCollection", "LinearRing"] {
        let geometry = format!(r#"{{"type":"{kind}","coordinates":[1,2]}}"#);
        table.geometry(&format!("the type {kind:?}"), geometry, UnknownGeometryType, "/type");
    }
    table.geometry("an empty geometry", "{}", InvalidGeometry, "");
    table.geometry("no type", r#"{"coordinates":[1,2]}"#, InvalidGeometry, "");
    for kind in ["null", "1", "[\"Point\"]"] {
        let geometry = format!(r#"{{"type":{kind},"coordinates":[1,2]}}"#);
        table.geometry(&format!("the type {kind}"), geometry, InvalidGeometry, "/type");
    }
    for kind in ["Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon"] {
        let geometry = format!(r#"{{"type":"{kind}","geometries":[{POINT}]}}"#);
        table.geometry(&format!("{kind} without coordinates"), geometry, InvalidGeometry, "");
        for coordinates in ["null", r#"{"0":1,"1":2}"#, r#""1,2""#, "1", "true"] {
            table.coordinates(kind, coordinates, InvalidCoordinates, "");
        }
    }
    let collection = |geometries: &str| format!(r#"{{"type":"GeometryCollection",{geometries}}}"#);
    let geometry = collection(r#""coordinates":[1,2]"#);
    table.geometry("collection without geometries", geometry, InvalidGeometry, "");
    for geometries in ["null", POINT, r#""Point""#, "1"] {
        let name = format!("collection of {geometries}");
        let geometry = collection(&format!(r#""geometries":{geometries}"#));
        table.geometry(&name, geometry, InvalidCoordinates, "/geometries");
    }
    for part in ["null", "[1,2]", r#""Point""#, "[]", "{}"] {
        let name = format!("collection with {part}");
        let geometry = collection(&format!(r#""geometries":[{POINT},{part}]"#));
        table.geometry(&name, geometry, InvalidGeometry, "/geometries/1");
    }
    // RFC 7946 §7.1; a geometry and a collection at once.
    for name in ["geometry", "properties", "features", "geometries"] {
        let geometry = format!(r#"{{"type":"Point","coordinates":[1,2],"{name}":null}}"#);
        let at = format!("/{name}");
        table.geometry(&format!("a Point with {name}"), &geometry, InvalidGeometry, &at);
        let part = collection(&format!(r#""geometries":[{POINT},{geometry}]"#));
        let at = format!("/geometries/1/{name}");
        table.geometry(&format!("a collection of a Point with {name}"), part, InvalidGeometry, &at);
    }
    for name in ["geometry", "properties", "features", "coordinates"] {
        let geometry = collection(&format!(r#""geometries":[{POINT}],"{name}":{{"a":1}}"#));
        let at = format!("/{name}");
        table.geometry(&format!("a collection with {name}"), geometry, InvalidGeometry, &at);
    }
    let geometry = collection(&format!(r#""geometries":[{{"type":"Feature","geometry":{POINT}}}]"#));
    table.geometry("collection of Features", geometry, UnknownGeometryType, "/geometries/0/type");
}

/// Positions that are none, or at a wrong depth.
pub fn positions(table: &mut impl Refusals) {
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
    table.geometry("collection one level too many", nested, Code::InvalidGeometry, "/geometries/0");

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
    table.geometry("collection of nothing", empty, EmptyGeometry, "/geometries");
    let nested = format!(r#"{{"type":"GeometryCollection","geometries":[{POINT},{empty}]}}"#);
    table.geometry(
        "collection of a collection of nothing",
        nested,
        EmptyGeometry,
        "/geometries/1/geometries",
    );
}

/// Lines that are too short, and rings that are too short or open.
pub fn lines_and_rings(table: &mut impl Refusals) {
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
        "open ring in a collection in a collection",
        inside(r#"{"type":"Polygon","coordinates":[[[0,0],[1,0],[1,1],[0,1]]]}"#),
        RingNotClosed,
        &format!("{at}/0"),
    );
    table.geometry(
        "short line in a collection in a collection",
        inside(r#"{"type":"LineString","coordinates":[[0,0]]}"#),
        LineTooShort,
        at,
    );
    table.geometry(
        "longitude in a collection in a collection",
        inside(r#"{"type":"MultiPoint","coordinates":[[0,0],[-181,0]]}"#),
        Code::LongitudeOutOfRange,
        &format!("{at}/1/0"),
    );
}

/// Coordinates out of range, and the hints that are given.
pub fn ranges(table: &mut impl Refusals) {
    use Code::{LatitudeOutOfRange, LongitudeOutOfRange};

    table.expect_detail("!swapped");
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

    table.expect_detail("scrolled around the world");
    for lon in ["190", "-180.5", "540", "-540"] {
        table.coordinates("Point", &format!("[{lon},0]"), LongitudeOutOfRange, "/0");
    }

    table.expect_detail("!scrolled");
    table.coordinates("Point", "[540.5,0]", LongitudeOutOfRange, "/0");

    table.expect_detail("swapped");
    table.coordinates("Point", "[0,90.0000001]", LatitudeOutOfRange, "/1");
    table.coordinates("Point", "[0,-90.0000001]", LatitudeOutOfRange, "/1");
    table.coordinates("Point", "[52.5,113.4]", LatitudeOutOfRange, "/1");
    table.coordinates("Point", "[-33.9,151.2,5]", LatitudeOutOfRange, "/1");
    table.coordinates("Point", "[90,180]", LatitudeOutOfRange, "/1");
    table.coordinates("LineString", "[[35.6,39.7],[35.7,139.7]]", LatitudeOutOfRange, "/1/1");
    table.coordinates("Polygon", "[[[0,0],[1,0],[-37.8,144.9],[0,0]]]", LatitudeOutOfRange, "/0/2/1");

    table.expect_detail("");
}

/// Geometries of more positions than one may have.
pub fn too_many_positions(table: &mut impl Refusals) {
    let points = |n: usize| vec!["[1,2]"; n].join(",");
    let too_many = Code::TooManyPositions;
    table.coordinates("MultiPoint", &format!("[{}]", points(50_001)), too_many, "/50000");
    table.coordinates("LineString", &format!("[{}]", points(60_000)), too_many, "/50000");
    let (a, b) = (points(30_000), points(20_001));
    table.coordinates("MultiLineString", &format!("[[{a}],[{b}]]"), too_many, "/1/20000");
    let parts =
        format!(r#"{{"type":"MultiPoint","coordinates":[{a}]}},{{"type":"LineString","coordinates":[{b}]}}"#);
    table.geometry(
        "too many positions together",
        format!(r#"{{"type":"GeometryCollection","geometries":[{parts}]}}"#),
        too_many,
        "/geometries/1/coordinates/20000",
    );
}
