//! Bad requests, one after the other on one server: each has its own right answer, none changes anything,
//! and the next request is served. Also what looks bad and is not.

use std::{collections::HashSet, time::Duration};

use futures_util::stream;
use georoom::domain::error::Code;
use reqwest::{
    Body, Method, Response, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    on_one_database,
    support::{
        Db, TestServer, answer,
        noise::{self, IN_FLIGHT},
        point,
        problem::Problem,
    },
};

on_one_database!(
    every_bad_request_has_its_own_answer_and_changes_nothing,
    what_only_looks_bad_is_accepted,
    an_id_is_taken_in_every_form_that_means_it,
    properties_fill_64_kib_to_the_last_byte,
    chunked_bodies_are_bodies,
    a_wrong_content_length_harms_nobody,
    a_body_that_never_ends_does_not_keep_the_server_from_stopping,
);

const MIB: usize = 1024 * 1024;
/// Of all properties of a location together.
const PROPERTIES: usize = 64 * 1024;
const GOOD: &str = r#"{"type":"Point","coordinates":[13.4,52.5]}"#;
/// Longer than anything here takes on a busy machine; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// What no HTTP request can bring about in open mode: faults of the server or the database, the sockets' own, and
/// refusals of those who may not; nor one whole request alone.
const NOT_BY_A_REQUEST: [Code; 19] = [
    Code::Unauthorized,
    Code::InvalidToken,
    Code::TokenExpired,
    Code::InvalidShare,
    Code::ShareExpired,
    Code::InvalidSharePassword,
    Code::Forbidden,
    Code::TooManyMembers,
    Code::TooManyShares,
    Code::StorageUnavailable,
    Code::Internal,
    Code::Unhealthy,
    Code::RateLimited,
    Code::RequestTimeout,
    Code::MisdirectedRequest,
    Code::InvalidPayload,
    Code::UnknownEvent,
    Code::NotInRoom,
    Code::MessageTooLarge,
];

/// A bad request and its answer.
struct Row {
    name: String,
    method: Method,
    path: String,
    content_type: Option<&'static [u8]>,
    content_encoding: Option<&'static str>,
    body: Vec<u8>,
    status: u16,
    code: Code,
    pointer: Option<String>,
    /// Must be in the detail; after a `!`, must not.
    says: &'static str,
}

/// The table, for a location that exists.
struct Table {
    id: u64,
    rows: Vec<Row>,
}

impl Table {
    fn row(
        &mut self,
        name: &str,
        method: Method,
        path: &str,
        body: impl Into<Vec<u8>>,
        (status, code, pointer): (u16, Code, Option<&str>),
    ) -> &mut Row {
        let row = Row {
            name: format!("{name} ({method} {path})"),
            path: path.replace("{id}", &self.id.to_string()),
            method,
            content_type: Some(b"application/json"),
            content_encoding: None,
            body: body.into(),
            status,
            code,
            pointer: pointer.map(str::to_owned),
            says: "",
        };
        self.rows.push(row);
        self.rows.last_mut().expect("just pushed")
    }

    /// A body that is no JSON, whatever it is sent to.
    fn not_json(&mut self, name: &str, body: impl AsRef<[u8]>) {
        for (method, path) in
            [(Method::POST, "/location"), (Method::PUT, "/location"), (Method::PUT, "/location/{id}")]
        {
            self.row(name, method, path, body.as_ref(), (400, Code::InvalidJson, None));
        }
    }

    /// A body that is JSON and refused by `POST` and by `PUT` with the id in the path.
    fn body(&mut self, name: &str, body: impl AsRef<str>, code: Code, pointer: &str) {
        for (method, path) in [(Method::POST, "/location"), (Method::PUT, "/location/{id}")] {
            self.row(name, method, path, body.as_ref(), (422, code, Some(pointer)));
        }
    }

    /// A body that `PUT /location` refuses; the location's id stands in it as `$id`.
    fn put(&mut self, name: &str, body: &str, code: Code, pointer: &str) {
        let body = body.replace("$id", &self.id.to_string());
        self.row(name, Method::PUT, "/location", body, (422, code, Some(pointer)));
    }

    /// Members that are refused in all three bodies.
    fn members(&mut self, name: &str, members: &str, code: Code, pointer: &str) {
        self.body(name, format!("{{{members}}}"), code, pointer);
        self.put(name, &format!(r#"{{"id":$id,{members}}}"#), code, pointer);
    }

    /// A geometry; its faults are pointed at from the body's root.
    fn geometry(&mut self, name: &str, geometry: impl AsRef<str>, code: Code, pointer: &str) {
        let members = format!(r#""geometry":{}"#, geometry.as_ref());
        self.members(name, &members, code, &format!("/geometry{pointer}"));
    }

    /// The same for one that has coordinates.
    fn coordinates(&mut self, kind: &str, coordinates: &str, code: Code, pointer: &str) {
        let name = format!("{kind} {coordinates:.60}");
        let geometry = format!(r#"{{"type":"{kind}","coordinates":{coordinates}}}"#);
        self.geometry(&name, geometry, code, &format!("/coordinates{pointer}"));
    }

    /// What the detail of the rows since `from` must say.
    fn says(&mut self, from: usize, words: &'static str) {
        self.rows[from..].iter_mut().for_each(|row| row.says = words);
    }

    fn syntax(&mut self) {
        self.not_json("nothing", "");
        self.not_json("white space", " \r\n\t");
        self.not_json("cut off between values", r#"{"geometry":{"type":"Point","coordinates":[1,2]"#);
        self.not_json("cut off inside a string", r#"{"geometry":{"type":"Poi"#);
        self.not_json("cut off inside an escape", r#"{"geometry":{"type":"\u00"#);
        self.not_json("cut off after a colon", r#"{"geometry":"#);
        self.not_json("trailing comma in an object", format!(r#"{{"geometry":{GOOD},}}"#));
        self.not_json("trailing comma in an array", r#"{"geometry":{"type":"Point","coordinates":[1,2,]}}"#);
        self.not_json("two values", format!(r#"{{"geometry":{GOOD}}}{{"geometry":{GOOD}}}"#));
        self.not_json("two lines of JSON", format!("{{\"geometry\":{GOOD}}}\n{{\"geometry\":{GOOD}}}\n"));
        self.not_json("a NUL behind", format!("{{\"geometry\":{GOOD}}}\0"));
        self.not_json("a bracket too much", format!(r#"{{"geometry":{GOOD}}}}}"#));
        self.not_json("missing comma", format!(r#"{{"geometry":{GOOD} "properties":{{}}}}"#));
        self.not_json("missing colon", format!(r#"{{"geometry" {GOOD}}}"#));
        self.not_json("single quotes", "{'geometry':{'type':'Point','coordinates':[1,2]}}");
        self.not_json("names without quotes", format!("{{geometry:{GOOD}}}"));
        self.not_json("a number as a name", format!(r#"{{"geometry":{GOOD},1:2}}"#));
        self.not_json("a comment", format!(r#"{{"geometry":{GOOD}/* here */}}"#));
        self.not_json("a form", "geometry=%7B%7D&properties=1");
        for number in [
            "NaN",
            "Infinity",
            "-Infinity",
            "1e999",
            "-1e999",
            "+1",
            "01",
            ".5",
            "1.",
            "0x1",
            "1e",
            "-",
            "1_000",
            "1,5e",
            "undefined",
            "nul",
            "True",
        ] {
            let body = format!(r#"{{"geometry":{{"type":"Point","coordinates":[{number},2]}}}}"#);
            self.not_json(&format!("the number {number}"), body);
        }
        self.not_json("a number beyond a double in properties", in_properties("1e400"));
        for (name, text) in [
            ("a lone high surrogate", r#""\ud800""#),
            ("a lone low surrogate", r#""\udc00""#),
            ("a high surrogate before a letter", r#""\ud83da""#),
            ("two high surrogates", r#""\ud83d\ud83d""#),
            ("an escape JSON does not have", r#""\x41""#),
            ("a line break in a string", "\"a\nb\""),
            ("a NUL in a string", "\"a\0b\""),
        ] {
            self.not_json(name, in_properties(text));
        }
        self.not_json("a lone surrogate in a name", format!(r#"{{"geometry":{GOOD},"\udfff":1}}"#));
        for (name, bytes) in [
            ("a byte that is never UTF-8", &b"\"\xff\""[..]),
            ("Latin-1", b"\"caf\xe9\""),
            ("UTF-8 cut off", b"\"\xe2\x9b\""),
            ("an overlong slash", b"\"\xc0\xaf\""),
            ("a surrogate in UTF-8", b"\"\xed\xa0\x80\""),
            ("beyond Unicode", b"\"\xf4\x90\x80\x80\""),
        ] {
            self.not_json(name, in_properties_bytes(bytes));
        }
        self.not_json("a byte that is never UTF-8, in a name", b"{\"geometry\":null,\"\xff\":1}");
        self.not_json("a byte that is never UTF-8, between values", b"{\"geometry\":\xff null}");
        self.not_json("two byte order marks", format!("\u{feff}\u{feff}{{\"geometry\":{GOOD}}}"));
        self.not_json("a byte order mark and nothing", "\u{feff}");
        let utf_16: Vec<u8> =
            format!(r#"{{"geometry":{GOOD}}}"#).encode_utf16().flat_map(u16::to_le_bytes).collect();
        self.not_json("UTF-16", utf_16);
        // 128 levels with those around them.
        self.not_json("arrays nested too deep", in_properties(&nested("[", "1", "]", 126)));
        self.not_json("objects nested too deep", in_properties(&nested("{\"a\":", "1", "}", 126)));
        self.not_json("nested too deep and nothing else", nested("[", "", "]", 128));
        self.not_json("nested a hundred thousand deep", nested("[", "", "]", 100_000));
        self.not_json("brackets that only open", "[".repeat(MIB));
        self.not_json("objects that only open", "{\"a\":".repeat(MIB / 5));
        let collections = nested(r#"{"type":"GeometryCollection","geometries":["#, GOOD, "]}", 64);
        self.not_json("collections nested too deep", format!(r#"{{"geometry":{collections}}}"#));
    }

    fn top_level(&mut self) {
        for (name, body) in [
            ("an array", format!(r#"[{{"geometry":{GOOD}}}]"#)),
            ("an empty array", "[]".to_owned()),
            ("a string", r#""{}""#.to_owned()),
            ("a number", "42".to_owned()),
            ("null", "null".to_owned()),
            ("true", "true".to_owned()),
        ] {
            self.body(name, body, Code::InvalidBody, "");
        }
        self.body("a bare geometry", GOOD, Code::InvalidBody, "/type");
        self.body(
            "a bare GeometryCollection",
            format!(r#"{{"type":"GeometryCollection","geometries":[{GOOD}]}}"#),
            Code::InvalidBody,
            "/type",
        );
        let features = format!(r#"[{{"type":"Feature","geometry":{GOOD},"properties":{{}}}}]"#);
        self.body(
            "a FeatureCollection",
            format!(r#"{{"type":"FeatureCollection","features":{features}}}"#),
            Code::InvalidBody,
            "/type",
        );
        for kind in ["null", "1", "true", "[\"Feature\"]", "{}", r#""""#, r#""feature""#, r#""Topology""#] {
            let members = format!(r#""type":{kind},"geometry":{GOOD}"#);
            self.members(&format!("the type {kind}"), &members, Code::InvalidBody, "/type");
        }
        // RFC 7946 §7.1: what of another kind of object would be dropped without a word.
        for (name, value) in
            [("coordinates", "[1,2]"), ("geometries", "[]"), ("features", "null"), ("coordinates", "null")]
        {
            let members = format!(r#""geometry":{GOOD},"{name}":{value}"#);
            self.members(&format!("a Feature with {name}"), &members, Code::InvalidBody, &format!("/{name}"));
            let members = format!(r#""type":"Feature","properties":{{"a":1}},"{name}":{value}"#);
            self.members(&format!("only {name}"), &members, Code::InvalidBody, &format!("/{name}"));
        }
        let nothing = "an empty object";
        self.row(nothing, Method::POST, "/location", "{}", (422, Code::GeometryRequired, Some("/geometry")));
        self.row(nothing, Method::PUT, "/location/{id}", "{}", (422, Code::NothingToUpdate, Some("")));
        self.row(nothing, Method::PUT, "/location", "{}", (422, Code::InvalidId, Some("/id")));
        self.row(
            "only properties",
            Method::POST,
            "/location",
            r#"{"properties":{"name":"bus"}}"#,
            (422, Code::GeometryRequired, Some("/geometry")),
        );
    }

    fn member_types(&mut self) {
        for id in [
            "$id.5",
            "-$id",
            "-$id.0",
            "0",
            "-0",
            "9007199254740992",
            "9223372036854775808",
            "18446744073709551616",
            "1e30",
            "null",
            "true",
            "[$id]",
            r#"{"id":$id}"#,
        ] {
            let body = format!(r#"{{"id":{id},"geometry":{GOOD}}}"#);
            let name = format!("the id {id}");
            self.put(&name, &body, Code::InvalidId, "/id");
            let body = body.replace("$id", &self.id.to_string());
            self.row(&name, Method::PUT, "/location/{id}", body, (422, Code::InvalidId, Some("/id")));
        }
        self.put("no id", &format!(r#"{{"geometry":{GOOD}}}"#), Code::InvalidId, "/id");
        for id in ["way/1", "0$id", "$id.0", " $id", "+$id", ""] {
            let name = format!("the id {id:?} of another tool");
            self.put(&name, &format!(r#"{{"id":"{id}","geometry":{GOOD}}}"#), Code::InvalidId, "/id");
        }
        for user in [
            r#""07""#,
            r#""7.0""#,
            "\"\"",
            "7.5",
            "-1",
            "-7.0",
            "9007199254740992",
            "9223372036854775808",
            "null",
            "false",
            "[7]",
            "{}",
        ] {
            let members = format!(r#""userId":{user},"geometry":{GOOD}"#);
            self.members(&format!("the userId {user}"), &members, Code::InvalidUserId, "/userId");
        }
        for properties in ["[]", r#"["a"]"#, r#""name""#, "1", "0", "true", "false"] {
            let members = format!(r#""geometry":{GOOD},"properties":{properties}"#);
            let name = format!("the properties {properties}");
            self.members(&name, &members, Code::InvalidProperties, "/properties");
        }
        self.geometry("geometry null", "null", Code::GeometryRequired, "");
        for geometry in [r#""POINT(1 2)""#, "[1,2]", "1", "true", "[]"] {
            self.geometry(&format!("the geometry {geometry}"), geometry, Code::InvalidGeometry, "");
        }
    }

    fn geometry_objects(&mut self) {
        use Code::{InvalidCoordinates, InvalidGeometry, UnknownGeometryType};

        for kind in ["", "Circle", "point", "POINT", "Point ", "Feature", "FeatureCollection", "LinearRing"] {
            let geometry = format!(r#"{{"type":"{kind}","coordinates":[1,2]}}"#);
            self.geometry(&format!("the type {kind:?}"), geometry, UnknownGeometryType, "/type");
        }
        self.geometry("an empty geometry", "{}", InvalidGeometry, "");
        self.geometry("no type", r#"{"coordinates":[1,2]}"#, InvalidGeometry, "");
        for kind in ["null", "1", "[\"Point\"]"] {
            let geometry = format!(r#"{{"type":{kind},"coordinates":[1,2]}}"#);
            self.geometry(&format!("the type {kind}"), geometry, InvalidGeometry, "/type");
        }
        for kind in ["Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon"] {
            let geometry = format!(r#"{{"type":"{kind}","geometries":[{GOOD}]}}"#);
            self.geometry(&format!("{kind} without coordinates"), geometry, InvalidGeometry, "");
            for coordinates in ["null", r#"{"0":1,"1":2}"#, r#""1,2""#, "1", "true"] {
                self.coordinates(kind, coordinates, InvalidCoordinates, "");
            }
        }
        let collection = |geometries: &str| format!(r#"{{"type":"GeometryCollection",{geometries}}}"#);
        let geometry = collection(r#""coordinates":[1,2]"#);
        self.geometry("collection without geometries", geometry, InvalidGeometry, "");
        for geometries in ["null", GOOD, r#""Point""#, "1"] {
            let name = format!("collection of {geometries}");
            let geometry = collection(&format!(r#""geometries":{geometries}"#));
            self.geometry(&name, geometry, InvalidCoordinates, "/geometries");
        }
        for part in ["null", "[1,2]", r#""Point""#, "[]", "{}"] {
            let name = format!("collection with {part}");
            let geometry = collection(&format!(r#""geometries":[{GOOD},{part}]"#));
            self.geometry(&name, geometry, InvalidGeometry, "/geometries/1");
        }
        // RFC 7946 §7.1; a geometry and a collection at once.
        for name in ["geometry", "properties", "features", "geometries"] {
            let geometry = format!(r#"{{"type":"Point","coordinates":[1,2],"{name}":null}}"#);
            let at = format!("/{name}");
            self.geometry(&format!("a Point with {name}"), &geometry, InvalidGeometry, &at);
            let part = collection(&format!(r#""geometries":[{GOOD},{geometry}]"#));
            let at = format!("/geometries/1/{name}");
            self.geometry(&format!("a collection of a Point with {name}"), part, InvalidGeometry, &at);
        }
        for name in ["geometry", "properties", "features", "coordinates"] {
            let geometry = collection(&format!(r#""geometries":[{GOOD}],"{name}":{{"a":1}}"#));
            let at = format!("/{name}");
            self.geometry(&format!("a collection with {name}"), geometry, InvalidGeometry, &at);
        }
        let geometry = collection(&format!(r#""geometries":[{{"type":"Feature","geometry":{GOOD}}}]"#));
        self.geometry("collection of Features", geometry, UnknownGeometryType, "/geometries/0/type");
    }

    fn positions(&mut self) {
        use Code::{EmptyGeometry, InvalidCoordinates, InvalidPosition};

        for position in ["[]", "[1]", "[1,2,3,4]", "[1,2,3,4,5,6,7,8]"] {
            self.coordinates("Point", position, InvalidPosition, "");
            self.coordinates("MultiPoint", &format!("[[1,2],{position}]"), InvalidPosition, "/1");
            let ring = format!("[[[0,0],[1,0],{position},[0,0]]]");
            self.coordinates("Polygon", &ring, InvalidPosition, "/0/2");
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
            self.coordinates("Point", position, InvalidPosition, &format!("/{at}"));
            let line = format!("[[1,2],{position}]");
            self.coordinates("LineString", &line, InvalidPosition, &format!("/1/{at}"));
        }

        // One level too few, one too many.
        self.coordinates("Point", "[[1,2]]", InvalidPosition, "");
        self.coordinates("MultiPoint", "[1,2]", InvalidCoordinates, "/0");
        self.coordinates("MultiPoint", "[[[1,2],[3,4]]]", InvalidPosition, "/0/0");
        self.coordinates("LineString", "[1,2]", InvalidCoordinates, "/0");
        self.coordinates("LineString", "[[[1,2],[3,4]]]", InvalidPosition, "/0/0");
        self.coordinates("MultiLineString", "[[1,2],[3,4]]", InvalidCoordinates, "/0/0");
        self.coordinates("MultiLineString", "[[[[1,2],[3,4]]]]", InvalidPosition, "/0/0/0");
        self.coordinates("Polygon", "[[0,0],[1,0],[1,1],[0,0]]", InvalidCoordinates, "/0/0");
        self.coordinates("Polygon", "[[[[0,0],[1,0],[1,1],[0,0]]]]", InvalidPosition, "/0/0");
        self.coordinates("MultiPolygon", "[[[0,0],[1,0],[1,1],[0,0]]]", InvalidCoordinates, "/0/0/0");
        self.coordinates("MultiPolygon", "[[[[[0,0],[1,0]]]]]", InvalidPosition, "/0/0/0/0");
        self.coordinates("MultiPoint", r#"[[1,2],"3,4"]"#, InvalidCoordinates, "/1");
        self.coordinates("MultiLineString", "[[[1,2],[3,4]],null]", InvalidCoordinates, "/1");
        let nested = format!(r#"{{"type":"GeometryCollection","geometries":[[{GOOD}]]}}"#);
        self.geometry("collection one level too many", nested, Code::InvalidGeometry, "/geometries/0");

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
            self.coordinates(kind, coordinates, EmptyGeometry, at);
        }
        self.coordinates("MultiPoint", "[[]]", InvalidPosition, "/0");
        let empty = r#"{"type":"GeometryCollection","geometries":[]}"#;
        self.geometry("collection of nothing", empty, EmptyGeometry, "/geometries");
        let nested = format!(r#"{{"type":"GeometryCollection","geometries":[{GOOD},{empty}]}}"#);
        self.geometry(
            "collection of a collection of nothing",
            nested,
            EmptyGeometry,
            "/geometries/1/geometries",
        );
    }

    fn lines_and_rings(&mut self) {
        use Code::{LineTooShort, RingNotClosed, RingTooShort};
        const SQUARE: &str = "[[0,0],[9,0],[9,9],[0,9],[0,0]]";

        self.coordinates("LineString", "[[1,2]]", LineTooShort, "");
        self.coordinates("MultiLineString", "[[[1,2],[3,4]],[[1,2]]]", LineTooShort, "/1");
        self.coordinates("Polygon", "[[[0,0]]]", RingTooShort, "/0");
        self.coordinates("Polygon", "[[[0,0],[1,1],[0,0]]]", RingTooShort, "/0");
        self.coordinates("Polygon", "[[[0,0],[1,0],[1,1]]]", RingTooShort, "/0");
        self.coordinates("Polygon", "[[[0,0],[1,0],[1,1],[0,1]]]", RingNotClosed, "/0");
        self.coordinates("Polygon", "[[[0,0],[1,0],[1,1],[0,1e-9]]]", RingNotClosed, "/0");
        self.coordinates("Polygon", "[[[0,0,1],[1,0,1],[1,1,1],[0,0,2]]]", RingNotClosed, "/0");
        self.coordinates("Polygon", "[[[0,0,0],[1,0,0],[1,1,0],[0,0]]]", RingNotClosed, "/0");
        let hole = |ring: &str| format!("[{SQUARE},[[1,1],[1,2],[2,2],[1,1]],{ring}]");
        self.coordinates("Polygon", &hole("[[3,3],[3,4],[3,3]]"), RingTooShort, "/2");
        self.coordinates("Polygon", &hole("[[3,3],[3,4],[4,4],[4,3]]"), RingNotClosed, "/2");
        let second = |rings: &str| format!("[[{SQUARE}],[{rings}]]");
        self.coordinates("MultiPolygon", &second("[[0,0],[1,0],[1,1],[0,1]]"), RingNotClosed, "/1/0");
        self.coordinates(
            "MultiPolygon",
            &second(&format!("{SQUARE},[[1,1],[2,2],[1,1]]")),
            RingTooShort,
            "/1/1",
        );
        self.coordinates(
            "MultiPolygon",
            &second("[[0,0],[1,0],[1,91],[0,0]]"),
            Code::LatitudeOutOfRange,
            "/1/0/2/1",
        );
        let inside = |part: &str| {
            let collection = format!(r#"{{"type":"GeometryCollection","geometries":[{part}]}}"#);
            format!(r#"{{"type":"GeometryCollection","geometries":[{GOOD},{collection}]}}"#)
        };
        let at = "/geometries/1/geometries/0/coordinates";
        self.geometry(
            "open ring in a collection in a collection",
            inside(r#"{"type":"Polygon","coordinates":[[[0,0],[1,0],[1,1],[0,1]]]}"#),
            RingNotClosed,
            &format!("{at}/0"),
        );
        self.geometry(
            "short line in a collection in a collection",
            inside(r#"{"type":"LineString","coordinates":[[0,0]]}"#),
            LineTooShort,
            at,
        );
        self.geometry(
            "longitude in a collection in a collection",
            inside(r#"{"type":"MultiPoint","coordinates":[[0,0],[-181,0]]}"#),
            Code::LongitudeOutOfRange,
            &format!("{at}/1/0"),
        );
    }

    fn ranges(&mut self) {
        use Code::{LatitudeOutOfRange, LongitudeOutOfRange};

        let from = self.rows.len();
        for lon in ["180.0000001", "-180.0000001", "200", "-1e308", "18446744073709551616"] {
            self.coordinates("Point", &format!("[{lon},0]"), LongitudeOutOfRange, "/0");
        }
        for lat in ["180.0000001", "-181", "1e308", "-9223372036854775809"] {
            self.coordinates("Point", &format!("[0,{lat}]"), LatitudeOutOfRange, "/1");
        }
        // Wrong either way round.
        self.coordinates("Point", "[100,100]", LatitudeOutOfRange, "/1");
        self.coordinates("Point", "[90.0000001,120]", LatitudeOutOfRange, "/1");
        self.coordinates("Point", "[200,20]", LongitudeOutOfRange, "/0");
        self.coordinates("LineString", "[[1,2],[181,91]]", LongitudeOutOfRange, "/1/0");
        self.says(from, "!swapped");

        let from = self.rows.len();
        for lon in ["190", "-180.5", "540", "-540"] {
            self.coordinates("Point", &format!("[{lon},0]"), LongitudeOutOfRange, "/0");
        }
        self.says(from, "scrolled around the world");
        let from = self.rows.len();
        self.coordinates("Point", "[540.5,0]", LongitudeOutOfRange, "/0");
        self.says(from, "!scrolled");

        let from = self.rows.len();
        self.coordinates("Point", "[0,90.0000001]", LatitudeOutOfRange, "/1");
        self.coordinates("Point", "[0,-90.0000001]", LatitudeOutOfRange, "/1");
        self.coordinates("Point", "[52.5,113.4]", LatitudeOutOfRange, "/1");
        self.coordinates("Point", "[-33.9,151.2,5]", LatitudeOutOfRange, "/1");
        self.coordinates("Point", "[90,180]", LatitudeOutOfRange, "/1");
        self.coordinates("LineString", "[[35.6,39.7],[35.7,139.7]]", LatitudeOutOfRange, "/1/1");
        self.coordinates("Polygon", "[[[0,0],[1,0],[-37.8,144.9],[0,0]]]", LatitudeOutOfRange, "/0/2/1");
        self.says(from, "swapped");
    }

    fn duplicates(&mut self) {
        let twice = Code::DuplicateMember;
        let geometry = format!(r#""geometry":{GOOD}"#);
        self.members("geometry twice", &format!("{geometry},{geometry}"), twice, "/geometry");
        self.members("geometry and null", &format!(r#""geometry":null,{geometry}"#), twice, "/geometry");
        self.members(
            "type twice",
            &format!(r#""type":"Feature","type":"Feature",{geometry}"#),
            twice,
            "/type",
        );
        self.geometry("type twice", r#"{"type":"Point","type":"Point","coordinates":[1,2]}"#, twice, "/type");
        self.geometry(
            "coordinates twice",
            r#"{"type":"Point","coordinates":[1,2],"coordinates":[1,2]}"#,
            twice,
            "/coordinates",
        );
        self.geometry(
            "coordinates twice, once escaped",
            r#"{"type":"Point","coordinates":[1,2],"c\u006Fordinates":[3,4]}"#,
            twice,
            "/coordinates",
        );
        self.put("id twice", &format!(r#"{{"id":$id,"id":$id,{geometry}}}"#), twice, "/id");
        self.put("id and an escaped id", &format!(r#"{{"id":$id,"\u0069d":$id,{geometry}}}"#), twice, "/id");
        for (properties, at) in [
            (r#"{"a":1,"a":1}"#, "/a"),
            (r#"{"a":1,"b":{"c":[0,{"x":1,"y":2,"x":3}]}}"#, "/b/c/1/x"),
            (r#"{"a/b~c":1,"a/b~c":2}"#, "/a~1b~0c"),
            (r#"{"":1,"":2}"#, "/"),
            (r#"{"é":1,"\u00e9":2}"#, "/é"),
            (r#"{"\ud83d\ude8c":1,"🚌":2}"#, "/🚌"),
            // Also where the server would not look.
            (r#"{"version":1,"version":2}"#, "/version"),
        ] {
            let members = format!(r#"{geometry},"properties":{properties}"#);
            self.members(
                &format!("the properties {properties}"),
                &members,
                twice,
                &format!("/properties{at}"),
            );
        }
        let foreign = format!(r#"{geometry},"bbox":[0,0,1,1],"more":[{{"a":1,"a":2}}]"#);
        self.members("twice in a foreign member", &foreign, twice, "/more/0/a");
    }

    fn sizes(&mut self) {
        let points = |n: usize| vec!["[1,2]"; n].join(",");
        let too_many = Code::TooManyPositions;
        self.coordinates("MultiPoint", &format!("[{}]", points(50_001)), too_many, "/50000");
        self.coordinates("LineString", &format!("[{}]", points(60_000)), too_many, "/50000");
        let (a, b) = (points(30_000), points(20_001));
        self.coordinates("MultiLineString", &format!("[[{a}],[{b}]]"), too_many, "/1/20000");
        self.geometry(
            "too many positions together",
            format!(
                r#"{{"type":"GeometryCollection","geometries":[{{"type":"MultiPoint","coordinates":[{a}]}},{{"type":"LineString","coordinates":[{b}]}}]}}"#
            ),
            too_many,
            "/geometries/1/coordinates/20000",
        );

        let too_large = (413, Code::PayloadTooLarge, None);
        for (method, path) in
            [(Method::POST, "/location"), (Method::PUT, "/location"), (Method::PUT, "/location/{id}")]
        {
            let id = self.id;
            let body = format!(r#"{{"id":{id},"geometry":{GOOD}}}"#);
            self.row("a byte over 1 MiB", method.clone(), path, padded(&body, MIB + 1), too_large);
            self.row("3 MiB", method.clone(), path, padded(&body, 3 * MIB), too_large);
            self.row("1 MiB of nothing and a byte", method, path, vec![b' '; MIB + 1], too_large);
        }

        let properties = properties_of(PROPERTIES + 1);
        let members = format!(r#""geometry":{GOOD},"properties":{properties}"#);
        self.members("properties a byte over 64 KiB", &members, Code::PropertiesTooLarge, "/properties");
        let many: Vec<String> = (0..9_000).map(|n| format!(r#""k{n}":{n}"#)).collect();
        let members = format!(r#""geometry":{GOOD},"properties":{{{}}}"#, many.join(","));
        self.members("many properties", &members, Code::PropertiesTooLarge, "/properties");
        // The location has 40 KiB of its own.
        let members = format!(r#""id":$id,"properties":{{"more":"{}"}}"#, "x".repeat(30 * 1024));
        self.put(
            "too much after the merge",
            &format!("{{{members}}}"),
            Code::PropertiesTooLarge,
            "/properties",
        );
        let members = format!(r#"{members},"geometry":{GOOD}"#);
        self.put("too much, and a move", &format!("{{{members}}}"), Code::PropertiesTooLarge, "/properties");
    }

    fn content_types(&mut self) {
        for kind in [
            &b"text/plain"[..],
            b"text/plain;charset=UTF-8",
            b"application/x-www-form-urlencoded",
            b"multipart/form-data; boundary=x",
            b"application/xml",
            b"application/octet-stream",
            b"application/jsonp",
            b"application/geo",
            b"text/html, application/json",
            b"json",
            b"*/*",
            b"text/caf\xe9",
        ] {
            for (method, path) in
                [(Method::POST, "/location"), (Method::PUT, "/location"), (Method::PUT, "/location/{id}")]
            {
                let body = format!(r#"{{"id":{},"geometry":{GOOD}}}"#, self.id);
                let name = format!("Content-Type: {}", kind.escape_ascii());
                let row = self.row(&name, method, path, body, (415, Code::UnsupportedMediaType, None));
                row.content_type = Some(kind);
            }
        }
        for coding in ["gzip", "br", "deflate, gzip", "identity, zstd", "x"] {
            for (method, path) in
                [(Method::POST, "/location"), (Method::PUT, "/location"), (Method::PUT, "/location/{id}")]
            {
                let body = format!(r#"{{"id":{},"geometry":{GOOD}}}"#, self.id);
                let name = format!("Content-Encoding: {coding}");
                let row = self.row(&name, method, path, body, (415, Code::UnsupportedMediaType, None));
                (row.content_encoding, row.says) = (Some(coding), "Content-Encoding");
            }
        }
    }

    fn updates(&mut self) {
        let nothing = Code::NothingToUpdate;
        self.put("an id and nothing else", r#"{"id":$id}"#, nothing, "");
        self.put("null properties and nothing else", r#"{"id":$id,"properties":null}"#, nothing, "");
        self.put("a Feature of nothing", r#"{"type":"Feature","id":$id,"userId":7}"#, nothing, "");
        self.put("members nobody knows", r#"{"id":$id,"lat":1,"lon":2}"#, nothing, "");
        let id = self.id;
        let other = format!(r#"{{"id":{},"geometry":{GOOD}}}"#, id + 1);
        let good = format!(r#"{{"geometry":{GOOD}}}"#);
        self.row("another id", Method::PUT, "/location/{id}", &*other, (422, Code::IdMismatch, Some("/id")));
        let unknown = (404, Code::NotFound, None);
        self.row("an id that is none's", Method::PUT, "/location", &*other, unknown);
        let largest = format!(r#"{{"id":9007199254740991,"geometry":{GOOD}}}"#);
        self.row("the largest id", Method::PUT, "/location", largest, unknown);
        for path in [
            "/location/{id}9",
            "/location/9007199254740991",
            "/location/9007199254740992",
            "/location/18446744073709551616",
            "/location/0",
            "/location/0{id}",
            "/location/+{id}",
            "/location/-{id}",
            "/location/{id}.0",
            "/location/{id}e0",
            "/location/abc",
            "/location/null",
            "/location/%20{id}",
            "/location/%FF",
        ] {
            self.row("a path to none", Method::PUT, path, &*good, unknown);
        }
    }

    /// What is wrong with the rest of the request, the body being good.
    fn requests(&mut self) {
        let good = format!(r#"{{"geometry":{GOOD}}}"#);
        let no_method = (405, Code::MethodNotAllowed, None);
        for (method, path) in [
            (Method::PATCH, "/location"),
            (Method::DELETE, "/location"),
            (Method::POST, "/location/{id}"),
            (Method::PATCH, "/location/{id}"),
        ] {
            self.row("a method it does not have", method, path, &*good, no_method);
        }
        for (method, path) in
            [(Method::POST, "/locations"), (Method::PUT, "/"), (Method::PUT, "/location/{id}/geometry")]
        {
            self.row("no such path", method, path, &*good, (404, Code::NotFound, None));
        }
        let role = (422, Code::InvalidMember, Some("/role"));
        for body in [r#"{"role":"owner"}"#, r#"{"role":2}"#, "{}"] {
            self.row("a role of no member", Method::PUT, "/location/{id}/members/2", body, role);
        }
        let expires_at = (422, Code::InvalidExpiresAt, Some("/expiresAt"));
        for body in ["{}", r#"{"expiresAt":"soon"}"#, r#"{"expiresAt":"2000-01-01T00:00:00Z"}"#] {
            self.row("a share without end", Method::POST, "/location/{id}/shares", body, expires_at);
        }
        let bad_parameter = (422, Code::InvalidParameter, None);
        self.row("a bad parameter", Method::GET, "/location?perPage=101", "", bad_parameter);
        let bad_user = (422, Code::InvalidUserId, None);
        self.row("a bad user", Method::DELETE, "/location/{id}?userId=me", "", bad_user);
    }
}

fn table(id: u64) -> Vec<Row> {
    let mut table = Table { id, rows: Vec::new() };
    table.syntax();
    table.top_level();
    table.member_types();
    table.geometry_objects();
    table.positions();
    table.lines_and_rings();
    table.ranges();
    table.duplicates();
    table.sizes();
    table.content_types();
    table.updates();
    table.requests();
    table.rows
}

/// A value, or something like one, among the properties of a body that is good otherwise.
fn in_properties(value: &str) -> String {
    format!(r#"{{"geometry":{GOOD},"properties":{{"a":{value}}}}}"#)
}

fn in_properties_bytes(value: &[u8]) -> Vec<u8> {
    let before = format!(r#"{{"geometry":{GOOD},"properties":{{"a":"#);
    [before.as_bytes(), value, b"}}"].concat()
}

fn nested(open: &str, inner: &str, close: &str, depth: usize) -> String {
    format!("{}{inner}{}", open.repeat(depth), close.repeat(depth))
}

/// The same JSON with white space behind it.
fn padded(json: &str, length: usize) -> Vec<u8> {
    let mut body = json.as_bytes().to_vec();
    body.resize(length, b' ');
    body
}

/// An object of so many bytes.
fn properties_of(length: usize) -> String {
    let around = r#"{"a":""}"#.len();
    format!(r#"{{"a":"{}"}}"#, "x".repeat(length - around))
}

/// Does the pointer lead somewhere in what was sent, or to a member that is missing there?
fn leads_somewhere(pointer: &str, sent: &Value) -> bool {
    sent.pointer(pointer).is_some()
        || pointer
            .rsplit_once('/')
            .is_some_and(|(parent, _)| sent.pointer(parent).is_some_and(Value::is_object))
}

/// Sends the request and says what is wrong with the answer.
async fn fault(server: &TestServer, row: &Row) -> Result<(), String> {
    let url = format!("{}{}", server.api, row.path);
    let mut request = server.http.request(row.method.clone(), url).body(row.body.clone());
    if let Some(content_type) = row.content_type {
        request = request.header(CONTENT_TYPE, content_type);
    }
    if let Some(content_encoding) = row.content_encoding {
        request = request.header(CONTENT_ENCODING, content_encoding);
    }
    let problem = Problem::of(request.send().await.map_err(|e| format!("{e:?}"))?).await?;
    let expected = (row.status, row.code.as_str(), row.pointer.as_deref());
    if (problem.status.as_u16(), problem.code.as_str(), problem.pointer.as_deref()) != expected {
        return Err(format!("{problem:?} is not {expected:?}"));
    }
    let says_well = match row.says.strip_prefix('!') {
        Some(words) => !problem.detail.contains(words),
        None => problem.detail.contains(row.says),
    };
    if !says_well {
        return Err(format!("{:?}: {}", row.says, problem.detail));
    }
    match (serde_json::from_slice::<Value>(&row.body), &problem.pointer) {
        (Ok(sent), Some(pointer)) if !leads_somewhere(pointer, &sent) => {
            Err(format!("{pointer} leads nowhere"))
        }
        (Err(_), Some(pointer)) => Err(format!("{pointer} into what is not JSON")),
        _ => Ok(()),
    }
}

/// What no bad request may change: how many locations there are, and this one.
async fn state(server: &TestServer, id: u64) -> (Value, Value) {
    let (status, list) = server.get("/location?perPage=1").await;
    assert_eq!(status, StatusCode::OK, "{list}");
    let (status, location) = server.get(&format!("/location/{id}")).await;
    assert_eq!(status, StatusCode::OK, "{location}");
    (list["total"].clone(), location)
}

async fn target(server: &TestServer) -> u64 {
    let properties = json!({"name": "bus", "filler": "x".repeat(40 * 1024)});
    let (status, made) = server.post(&json!({"geometry": point(1.0, 2.0), "properties": properties})).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    made["data"]["location"]["id"].as_u64().expect("an id")
}

async fn every_bad_request_has_its_own_answer_and_changes_nothing(db: Db) {
    let server = TestServer::start(db).await;
    let id = target(&server).await;
    let before = state(&server, id).await;
    let rows = table(id);
    let mut faults = Vec::new();
    for row in &rows {
        if let Err(fault) = fault(&server, row).await {
            faults.push(format!("{}: {fault}", row.name));
        }
        if state(&server, id).await != before {
            faults.push(format!("{}: something was changed", row.name));
            break;
        }
    }
    assert!(faults.is_empty(), "{} of {} rows:\n{}", faults.len(), rows.len(), faults.join("\n"));

    let seen: HashSet<Code> = rows.iter().map(|row| row.code).collect();
    for code in Code::ALL.iter().filter(|code| !NOT_BY_A_REQUEST.contains(code)) {
        assert!(seen.contains(code), "no row has the code {}", code.as_str());
    }
    server.stop().await;
}

async fn what_only_looks_bad_is_accepted(db: Db) {
    let server = TestServer::start(db).await;
    let good = format!(r#"{{"geometry":{GOOD}}}"#);
    let json = Some("application/json");
    let mut accepted: Vec<(&str, Option<&str>, Vec<u8>)> = Vec::new();
    for content_type in [
        None,
        json,
        Some("application/json; charset=utf-8"),
        Some("application/json;charset=UTF-8"),
        Some("Application/JSON"),
        Some("application/geo+json"),
        Some("application/geo+json; charset=utf-8"),
        Some("application/vnd.geo+json"),
    ] {
        accepted.push(("a content type", content_type, good.clone().into()));
    }
    let positions = vec!["[1,2]"; 50_000].join(",");
    for (name, body) in [
        ("white space around", format!("\r\n\t {good} \n")),
        ("escaped names and values", r#"{"\u0067eometry":{"type":"\u0050oint","coordinates":[1,2]}}"#.into()),
        (
            "50,000 positions",
            format!(r#"{{"geometry":{{"type":"LineString","coordinates":[{positions}]}}}}"#),
        ),
        ("1 MiB", String::from_utf8(padded(&good, MIB)).expect("ASCII")),
        ("arrays 127 deep", in_properties(&nested("[", "1", "]", 125))),
        ("objects 127 deep", in_properties(&nested("{\"a\":", "1", "}", 125))),
        (
            "60 collections in one another",
            format!(
                r#"{{"geometry":{}}}"#,
                nested(r#"{"type":"GeometryCollection","geometries":["#, GOOD, "]}", 60)
            ),
        ),
        ("a Feature", format!(r#"{{"type":"Feature","geometry":{GOOD},"properties":{{}}}}"#)),
        ("null properties", format!(r#"{{"geometry":{GOOD},"properties":null}}"#)),
        ("an id that is the sender's", format!(r#"{{"id":"f1","geometry":{GOOD}}}"#)),
        ("a byte order mark", format!("\u{feff}{{\"geometry\":{GOOD}}}")),
        ("foreign members", format!(r#"{{"geometry":{GOOD},"bbox":[0,0,1,1],"more":1,"":null}}"#)),
        ("names of GeoJSON among the properties", in_properties(r#"{"coordinates":[],"features":1}"#)),
        (
            "foreign members in the geometry",
            r#"{"geometry":{"type":"Point","coordinates":[1,2],"bbox":0}}"#.into(),
        ),
        ("user 0", format!(r#"{{"userId":0,"geometry":{GOOD}}}"#)),
        ("user 0 with a sign", format!(r#"{{"userId":-0,"geometry":{GOOD}}}"#)),
        ("a user with a fraction of nothing", format!(r#"{{"userId":7.0,"geometry":{GOOD}}}"#)),
        ("a user in text", format!(r#"{{"userId":"7","geometry":{GOOD}}}"#)),
        ("the largest user", format!(r#"{{"userId":9007199254740991,"geometry":{GOOD}}}"#)),
        ("names that differ in case", format!(r#"{{"geometry":{GOOD},"properties":{{"a":1,"A":2}}}}"#)),
        (
            "the same name in two objects",
            format!(r#"{{"geometry":{GOOD},"properties":{{"a":{{"a":{{"a":1}}}}}}}}"#),
        ),
        ("a pair of surrogates", in_properties(r#""\ud83d\ude8c""#)),
        ("an escaped NUL", in_properties(r#""a\u0000b""#)),
        ("every odd string", in_properties(r#""'\"\\\/\b\f\n\r\t\u2028%00\u007f; DROP TABLE location""#)),
        ("a number that underflows", in_properties("1e-400")),
        (
            "the ends of the world",
            r#"{"geometry":{"type":"MultiPoint","coordinates":[[-180,-90],[180,90.0]]}}"#.into(),
        ),
        ("exponents", r#"{"geometry":{"type":"Point","coordinates":[1.8E+2,-9e1]}}"#.into()),
        (
            "a ring closed by another zero",
            r#"{"geometry":{"type":"Polygon","coordinates":[[[0,0],[1,0],[1,1],[-0.0,0.0]]]}}"#.into(),
        ),
        (
            "a clockwise ring that crosses itself",
            r#"{"geometry":{"type":"Polygon","coordinates":[[[0,0],[1,1],[1,0],[0,1],[0,0]]]}}"#.into(),
        ),
        (
            "a line that goes nowhere",
            r#"{"geometry":{"type":"LineString","coordinates":[[1,2],[1,2]]}}"#.into(),
        ),
    ] {
        accepted.push((name, json, body.into()));
    }
    let mut faults = Vec::new();
    let all = accepted.len();
    for (name, content_type, body) in accepted {
        let mut request = server.http.post(format!("{}/location", server.api)).body(body);
        if let Some(content_type) = content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        let answer = request.send().await.expect("an answer");
        if answer.status() != StatusCode::CREATED {
            faults.push(format!("{name} {content_type:?}: {} {:?}", answer.status(), answer.text().await));
        }
    }
    assert!(faults.is_empty(), "{} of {all}:\n{}", faults.len(), faults.join("\n"));
    assert_eq!(server.get("/location?perPage=1").await.1["total"], all);
    server.stop().await;
}

/// Some senders have no integers, others no numbers, and many tools have an id of their own.
async fn an_id_is_taken_in_every_form_that_means_it(db: Db) {
    let server = TestServer::start(db).await;
    let id = server.create_at(1.0, 2.0).await;
    let mut version = 1;
    let mut put = async |path: String, id: String| {
        let body = format!(r#"{{"id":{id},"userId":"8","geometry":{GOOD}}}"#);
        let answer = server.http.put(format!("{}{path}", server.api)).body(body);
        let (status, moved) = answer_of(answer).await;
        assert_eq!(status, StatusCode::CREATED, "{path} {id}: {moved}");
        version += 1;
        let properties = &moved["data"]["updatedLocationResult"]["properties"];
        assert_eq!((&properties["version"], &properties["updatedBy"]), (&json!(version), &json!(8)));
    };
    for form in [format!("{id}.0"), format!("{id}e0"), format!("\"{id}\""), id.to_string()] {
        put("/location".to_owned(), form.clone()).await;
        put(format!("/location/{id}"), form).await;
    }
    for foreign in [r#""way/1""#, r#""urn:x""#, r#""01""#] {
        put(format!("/location/{id}"), foreign.to_owned()).await;
    }
    // But never another location's.
    for other in [format!("{}.0", id + 1), format!("\"{}\"", id + 1)] {
        let body = format!(r#"{{"id":{other},"geometry":{GOOD}}}"#);
        let sent = server.http.put(format!("{}/location/{id}", server.api)).body(body).send();
        let problem = Problem::of(sent.await.expect("an answer")).await;
        Problem::check(problem, StatusCode::UNPROCESSABLE_ENTITY, Code::IdMismatch, &other);
    }
    server.stop().await;
}

async fn answer_of(request: reqwest::RequestBuilder) -> (StatusCode, Value) {
    answer(request.send().await.expect("an answer")).await
}

async fn properties_fill_64_kib_to_the_last_byte(db: Db) {
    let server = TestServer::start(db).await;
    let full: Value = serde_json::from_str(&properties_of(PROPERTIES)).expect("JSON");
    let (status, made) = server.post(&json!({"geometry": point(1.0, 2.0), "properties": full})).await;
    assert_eq!(status, StatusCode::CREATED);
    let id = &made["data"]["location"]["id"];

    // What the server writes takes no room, nor does what a merge takes away.
    let (status, _) = server.put(&json!({"id": id, "properties": {"version": 1, "createdAt": "x"}})).await;
    assert_eq!(status, StatusCode::CREATED);
    let full: Value = serde_json::from_str(&properties_of(PROPERTIES).replace('a', "b")).expect("JSON");
    let mut other = full.clone();
    other["a"] = Value::Null;
    let (status, moved) = server.put(&json!({"id": id, "properties": other})).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(moved["data"]["updatedLocationResult"]["properties"]["b"], full["b"]);

    let one_more = json!({"id": id, "properties": {"c": 1}});
    let answer = Problem::of(server.send(Method::PUT, "/location", Some(&one_more)).await).await;
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    let problem = Problem::check(answer, status, Code::PropertiesTooLarge, "a member more");
    assert_eq!(problem.pointer.as_deref(), Some("/properties"));
    let (_, read) = server.get(&format!("/location/{id}")).await;
    assert_eq!((&read["properties"]["version"], &read["properties"]["b"]), (&json!(3), &full["b"]));

    // Bytes, not characters: two each.
    let letters = "é".repeat(PROPERTIES / 2);
    let (status, _) = server.post(&json!({"geometry": point(1.0, 2.0), "properties": {"a": letters}})).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    server.stop().await;
}

async fn chunked_bodies_are_bodies(db: Db) {
    let server = TestServer::start(db).await;
    let post = |chunks: Vec<Vec<u8>>| {
        let body = Body::wrap_stream(stream::iter(chunks.into_iter().map(Ok::<_, std::io::Error>)));
        server.http.post(format!("{}/location", server.api)).body(body).send()
    };
    let good = format!(r#"{{"geometry":{GOOD},"properties":{{"name":"⛰ é 🚌"}}}}"#).into_bytes();
    let created = async |response: Response| {
        let (status, made) = answer(response).await;
        assert_eq!(status, StatusCode::CREATED, "{made}");
        assert_eq!(made["data"]["location"]["properties"]["name"], "⛰ é 🚌");
    };
    created(post(vec![good.clone()]).await.expect("an answer")).await;
    created(post(good.chunks(1).map(<[u8]>::to_vec).collect()).await.expect("an answer")).await;
    let mut made = 2;

    // Cut at every byte, each part a chunk and a packet of its own.
    let head = "POST /location HTTP/1.1\r\nHost: georoom\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut connection = Raw::connect(&server).await;
    for cut in 1..good.len() {
        connection.write(head.as_bytes()).await;
        for part in [&good[..cut], &good[cut..]] {
            connection.write(format!("{:x}\r\n", part.len()).as_bytes()).await;
            connection.write(part).await;
            connection.write(b"\r\n").await;
        }
        connection.write(b"0\r\n\r\n").await;
        let (status, answer) = connection.answer().await.expect("an answer");
        assert_eq!(status, 201, "cut at {cut}: {answer}");
        made += 1;
    }

    let many = |length: usize| padded(str::from_utf8(&good).expect("UTF-8"), length);
    created(post(many(MIB).chunks(4096).map(<[u8]>::to_vec).collect()).await.expect("an answer")).await;
    made += 1;
    for length in [MIB + 1, 3 * MIB] {
        let chunks = many(length).chunks(4096).map(<[u8]>::to_vec).collect();
        let answer = Problem::of(post(chunks).await.expect("an answer")).await;
        Problem::check(answer, StatusCode::PAYLOAD_TOO_LARGE, Code::PayloadTooLarge, "chunked");
    }
    let answer = Problem::of(post(vec![good[..40].to_vec()]).await.expect("an answer")).await;
    Problem::check(answer, StatusCode::BAD_REQUEST, Code::InvalidJson, "half a body, chunked");
    assert_eq!(server.get("/location?perPage=1").await.1["total"], made);

    // No such chunk: nothing is made, and the connection comes to its end.
    for chunks in ["zz\r\n{}\r\n0\r\n\r\n", "-1\r\n\r\n", "ffffffffffffffffff\r\n"] {
        let mut connection = Raw::connect(&server).await;
        connection.write(head.as_bytes()).await;
        connection.write(chunks.as_bytes()).await;
        if let Some((status, answer)) = connection.answer().await {
            assert_eq!(status, 400, "{chunks:?}: {answer}");
        }
    }
    assert_eq!(server.get("/location?perPage=1").await.1["total"], made);
    server.stop().await;
}

async fn a_wrong_content_length_harms_nobody(db: Db) {
    let server = TestServer::start(db).await;
    let id = target(&server).await;
    let before = state(&server, id).await;
    let body = format!(r#"{{"id":{id},"geometry":{GOOD}}}"#);
    let request = |method: &str, length: &str| {
        format!(
            "{method} /location HTTP/1.1\r\nHost: georoom\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    };
    for method in ["POST", "PUT"] {
        // Too short: half an object, and the rest is no request.
        for cut in [1, 5, body.len()] {
            let mut connection = Raw::connect(&server).await;
            connection.write(request(method, &(body.len() - cut).to_string()).as_bytes()).await;
            let (status, answer) = connection.answer().await.expect("an answer");
            assert_eq!((status, &answer["code"]), (400, &json!("invalid_json")), "{method} -{cut}: {answer}");
        }
        // Too long, and then the client hangs up.
        let mut connection = Raw::connect(&server).await;
        connection.write(request(method, &(body.len() + 10).to_string()).as_bytes()).await;
        connection.0.shutdown().await.expect("to hang up");
        if let Some((status, answer)) = connection.answer().await {
            assert_eq!(status, 400, "{method}: {answer}");
        }
        for length in ["-1", "abc", "1e3", "18446744073709551616", "10, 20"] {
            let mut connection = Raw::connect(&server).await;
            connection.write(request(method, length).as_bytes()).await;
            let (status, answer) = connection.answer().await.expect("an answer");
            assert_eq!(status, 400, "{method} {length}: {answer}");
        }
        assert_eq!(state(&server, id).await, before, "{method}");
    }
    server.stop().await;
}

async fn a_body_that_never_ends_does_not_keep_the_server_from_stopping(db: Db) {
    noise::expect(&[IN_FLIGHT]);
    let server = TestServer::start(db).await;
    let id = server.create_at(1.0, 2.0).await;
    let mut connection = Raw::connect(&server).await;
    connection
        .write(format!("PUT /location/{id} HTTP/1.1\r\nHost: georoom\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n").as_bytes())
        .await;
    // The server asks for the body, so the request is in flight.
    let (status, _) = connection.answer().await.expect("an answer");
    assert_eq!(status, 100);
    connection.write(br#"{"geometry":"#).await;
    assert_eq!(server.get(&format!("/location/{id}")).await.1["properties"]["version"], 1);
    timeout(Duration::from_secs(10), server.stop()).await.expect("to stop within 10 s");
}

/// A connection on which everything can be written.
struct Raw(TcpStream);

impl Raw {
    async fn connect(server: &TestServer) -> Self {
        let stream = TcpStream::connect(server.addrs.0).await.expect("to connect");
        stream.set_nodelay(true).expect("a socket");
        Self(stream)
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("to write");
    }

    /// One answer, its body as JSON if it is; `None` where the connection ended instead.
    async fn answer(&mut self) -> Option<(u16, Value)> {
        let read = async {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(self.0.read_u8().await.ok()?);
            }
            let head = String::from_utf8(head).expect("a head of ASCII").to_ascii_lowercase();
            let status = head.split(' ').nth(1)?.parse().expect("a status");
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length = length.map_or(0, |length| length.trim().parse().expect("a length"));
            let mut body = vec![0; length];
            self.0.read_exact(&mut body).await.ok()?;
            Some((status, serde_json::from_slice(&body).unwrap_or_default()))
        };
        timeout(PATIENCE, read).await.expect("an answer or an end")
    }
}
