//! Bodies that are no JSON, or JSON of another shape than a location.

use super::{Code, POINT, Refusals};

/// Bodies that are no JSON.
pub fn syntax(table: &mut impl Refusals) {
    table.not_json("nothing", "");
    table.not_json("white space", " \r\n\t");
    table.not_json("cut off between values", r#"{"geometry":{"type":"Point","coordinates":[1,2]"#);
    table.not_json("cut off inside a string", r#"{"geometry":{"type":"Poi"#);
    table.not_json("cut off inside an escape", r#"{"geometry":{"type":"\u00"#);
    table.not_json("cut off after a colon", r#"{"geometry":"#);
    table.not_json("trailing comma in an object", format!(r#"{{"geometry":{POINT},}}"#));
    table.not_json("trailing comma in an array", r#"{"geometry":{"type":"Point","coordinates":[1,2,]}}"#);
    table.not_json("two values", format!(r#"{{"geometry":{POINT}}}{{"geometry":{POINT}}}"#));
    table.not_json("two lines of JSON", format!("{{\"geometry\":{POINT}}}\n{{\"geometry\":{POINT}}}\n"));
    table.not_json("a NUL behind", format!("{{\"geometry\":{POINT}}}\0"));
    table.not_json("a bracket too much", format!(r#"{{"geometry":{POINT}}}}}"#));
    table.not_json("missing comma", format!(r#"{{"geometry":{POINT} "properties":{{}}}}"#));
    table.not_json("missing colon", format!(r#"{{"geometry" {POINT}}}"#));
    table.not_json("single quotes", "{'geometry':{'type':'Point','coordinates':[1,2]}}");
    table.not_json("names without quotes", format!("{{geometry:{POINT}}}"));
    table.not_json("a number as a name", format!(r#"{{"geometry":{POINT},1:2}}"#));
    table.not_json("a comment", format!(r#"{{"geometry":{POINT}/* here */}}"#));
    table.not_json("a form", "geometry=%7B%7D&properties=1");
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
        table.not_json(&format!("the number {number}"), body);
    }
    table.not_json("a number beyond a double in properties", in_properties("1e400"));
    for (name, text) in [
        ("a lone high surrogate", r#""\ud800""#),
        ("a lone low surrogate", r#""\udc00""#),
        ("a high surrogate before a letter", r#""\ud83da""#),
        ("two high surrogates", r#""\ud83d\ud83d""#),
        ("an escape JSON does not have", r#""\x41""#),
        ("a line break in a string", "\"a\nb\""),
        ("a NUL in a string", "\"a\0b\""),
    ] {
        table.not_json(name, in_properties(text));
    }
    table.not_json("a lone surrogate in a name", format!(r#"{{"geometry":{POINT},"\udfff":1}}"#));
    for (name, bytes) in [
        ("a byte that is never UTF-8", &b"\"\xff\""[..]),
        ("Latin-1", b"\"caf\xe9\""),
        ("UTF-8 cut off", b"\"\xe2\x9b\""),
        ("an overlong slash", b"\"\xc0\xaf\""),
        ("a surrogate in UTF-8", b"\"\xed\xa0\x80\""),
        ("beyond Unicode", b"\"\xf4\x90\x80\x80\""),
    ] {
        table.not_json(name, in_properties_bytes(bytes));
    }
    table.not_json("a byte that is never UTF-8, in a name", b"{\"geometry\":null,\"\xff\":1}");
    table.not_json("a byte that is never UTF-8, between values", b"{\"geometry\":\xff null}");
    table.not_json("two byte order marks", format!("\u{feff}\u{feff}{{\"geometry\":{POINT}}}"));
    table.not_json("a byte order mark and nothing", "\u{feff}");
    let utf_16: Vec<u8> =
        format!(r#"{{"geometry":{POINT}}}"#).encode_utf16().flat_map(u16::to_le_bytes).collect();
    table.not_json("UTF-16", utf_16);
    // 128 levels with those around them.
    table.not_json("arrays nested too deep", in_properties(&nested("[", "1", "]", 126)));
    table.not_json("objects nested too deep", in_properties(&nested("{\"a\":", "1", "}", 126)));
    table.not_json("nested too deep and nothing else", nested("[", "", "]", 128));
    table.not_json("nested a hundred thousand deep", nested("[", "", "]", 100_000));
    table.not_json("brackets that only open", "[".repeat(MIB));
    table.not_json("objects that only open", "{\"a\":".repeat(MIB / 5));
    let collections = nested(r#"{"type":"GeometryCollection","geometries":["#, POINT, "]}", 64);
    table.not_json("collections nested too deep", format!(r#"{{"geometry":{collections}}}"#));
}

/// JSON that is no Feature and does not look like one.
pub fn top_level(table: &mut impl Refusals) {
    for (name, body) in [
        ("an array", format!(r#"[{{"geometry":{POINT}}}]"#)),
        ("an empty array", "[]".to_owned()),
        ("a string", r#""{}""#.to_owned()),
        ("a number", "42".to_owned()),
        ("null", "null".to_owned()),
        ("true", "true".to_owned()),
    ] {
        table.body(name, body, Code::InvalidBody, "");
    }
    table.body("a bare geometry", POINT, Code::InvalidBody, "/type");
    table.body(
        "a bare GeometryCollection",
        format!(r#"{{"type":"GeometryCollection","geometries":[{POINT}]}}"#),
        Code::InvalidBody,
        "/type",
    );
    let features = format!(r#"[{{"type":"Feature","geometry":{POINT},"properties":{{}}}}]"#);
    table.body(
        "a FeatureCollection",
        format!(r#"{{"type":"FeatureCollection","features":{features}}}"#),
        Code::InvalidBody,
        "/type",
    );
    for kind in ["null", "1", "true", "[\"Feature\"]", "{}", r#""""#, r#""feature""#, r#""Topology""#] {
        let members = format!(r#""type":{kind},"geometry":{POINT}"#);
        table.members(&format!("the type {kind}"), &members, Code::InvalidBody, "/type");
    }
    // RFC 7946 §7.1: what of another kind of object would be dropped without a word.
    for (name, value) in
        [("coordinates", "[1,2]"), ("geometries", "[]"), ("features", "null"), ("coordinates", "null")]
    {
        let members = format!(r#""geometry":{POINT},"{name}":{value}"#);
        table.members(&format!("a Feature with {name}"), &members, Code::InvalidBody, &format!("/{name}"));
        let members = format!(r#""type":"Feature","properties":{{"a":1}},"{name}":{value}"#);
        table.members(&format!("only {name}"), &members, Code::InvalidBody, &format!("/{name}"));
    }
    let nothing = "an empty object";
    table.post(nothing, "{}", Code::GeometryRequired, "/geometry");
    table.put_by_path(nothing, "{}", Code::NothingToUpdate, "");
    table.put(nothing, "{}", Code::InvalidId, "/id");
    table.post("only properties", r#"{"properties":{"name":"bus"}}"#, Code::GeometryRequired, "/geometry");
}

/// Members of a wrong type or value.
pub fn member_types(table: &mut impl Refusals) {
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
        let body = format!(r#"{{"id":{id},"geometry":{POINT}}}"#);
        let name = format!("the id {id}");
        table.put(&name, &body, Code::InvalidId, "/id");
        table.put_by_path(&name, &body, Code::InvalidId, "/id");
    }
    table.put("no id", &format!(r#"{{"geometry":{POINT}}}"#), Code::InvalidId, "/id");
    for id in ["way/1", "0$id", "$id.0", " $id", "+$id", ""] {
        let name = format!("the id {id:?} of another tool");
        table.put(&name, &format!(r#"{{"id":"{id}","geometry":{POINT}}}"#), Code::InvalidId, "/id");
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
        let members = format!(r#""userId":{user},"geometry":{POINT}"#);
        table.members(&format!("the userId {user}"), &members, Code::InvalidUserId, "/userId");
    }
    for properties in ["[]", r#"["a"]"#, r#""name""#, "1", "0", "true", "false"] {
        let members = format!(r#""geometry":{POINT},"properties":{properties}"#);
        let name = format!("the properties {properties}");
        table.members(&name, &members, Code::InvalidProperties, "/properties");
    }
    table.geometry("geometry null", "null", Code::GeometryRequired, "");
    for geometry in [r#""POINT(1 2)""#, "[1,2]", "1", "true", "[]"] {
        table.geometry(&format!("the geometry {geometry}"), geometry, Code::InvalidGeometry, "");
    }
}

/// Bodies of a PUT that change nothing.
pub fn nothing_to_update(table: &mut impl Refusals) {
    let nothing = Code::NothingToUpdate;
    table.put("an id and nothing else", r#"{"id":$id}"#, nothing, "");
    table.put("null properties and nothing else", r#"{"id":$id,"properties":null}"#, nothing, "");
    table.put("a Feature of nothing", r#"{"type":"Feature","id":$id,"userId":7}"#, nothing, "");
    table.put("members nobody knows", r#"{"id":$id,"lat":1,"lon":2}"#, nothing, "");
}

/// Members that are there twice.
pub fn duplicates(table: &mut impl Refusals) {
    let twice = Code::DuplicateMember;
    let geometry = format!(r#""geometry":{POINT}"#);
    table.members("geometry twice", &format!("{geometry},{geometry}"), twice, "/geometry");
    table.members("geometry and null", &format!(r#""geometry":null,{geometry}"#), twice, "/geometry");
    table.members("type twice", &format!(r#""type":"Feature","type":"Feature",{geometry}"#), twice, "/type");
    table.geometry("type twice", r#"{"type":"Point","type":"Point","coordinates":[1,2]}"#, twice, "/type");
    table.geometry(
        "coordinates twice",
        r#"{"type":"Point","coordinates":[1,2],"coordinates":[1,2]}"#,
        twice,
        "/coordinates",
    );
    table.geometry(
        "coordinates twice, once escaped",
        r#"{"type":"Point","coordinates":[1,2],"c\u006Fordinates":[3,4]}"#,
        twice,
        "/coordinates",
    );
    table.put("id twice", &format!(r#"{{"id":$id,"id":$id,{geometry}}}"#), twice, "/id");
    table.put("id and an escaped id", &format!(r#"{{"id":$id,"\u0069d":$id,{geometry}}}"#), twice, "/id");
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
        table.members(&format!("the properties {properties}"), &members, twice, &format!("/properties{at}"));
    }
    let foreign = format!(r#"{geometry},"bbox":[0,0,1,1],"more":[{{"a":1,"a":2}}]"#);
    table.members("twice in a foreign member", &foreign, twice, "/more/0/a");
}

const MIB: usize = 1024 * 1024;

/// A value, or something like one, among the properties of a body that is good otherwise.
pub fn in_properties(value: &str) -> String {
    format!(r#"{{"geometry":{POINT},"properties":{{"a":{value}}}}}"#)
}

fn in_properties_bytes(value: &[u8]) -> Vec<u8> {
    let before = format!(r#"{{"geometry":{POINT},"properties":{{"a":"#);
    [before.as_bytes(), value, b"}}"].concat()
}

/// Repeats what opens and closes so many times around what is inside.
pub fn nested(open: &str, inner: &str, close: &str, depth: usize) -> String {
    format!("{}{inner}{}", open.repeat(depth), close.repeat(depth))
}
