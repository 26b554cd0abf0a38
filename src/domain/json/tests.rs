//! Tables of bodies that are no JSON, and of members that are there twice.

use super::*;

#[test]
fn finds_a_member_that_is_there_twice() {
    let error = object(br#"{"a":[{"b":1},{"x/y~":{"c":1,"c":2}}]}"#).unwrap_err();
    assert_eq!(error.code, Code::DuplicateMember);
    assert_eq!(error.pointer.as_deref(), Some("/a/1/x~1y~0/c"));
}

#[test]
fn keeps_every_double_and_the_order_of_members() {
    let text = r#"{"z":-0.0,"a":5e-324,"m":1.7976931348623157e+308,"i":9007199254740993,"n":-3}"#;
    assert_eq!(serde_json::to_string(&object(text.as_bytes()).unwrap()).unwrap(), text);
}

#[test]
fn ignores_a_byte_order_mark_before_the_body_and_nowhere_else() {
    assert!(object("\u{feff}{}".as_bytes()).is_ok());
    for text in ["\u{feff}", "\u{feff}\u{feff}{}", "{\u{feff}}", "{}\u{feff}"] {
        assert_eq!(object(text.as_bytes()).unwrap_err().code, Code::InvalidJson, "{text:?}");
    }
}

#[test]
fn an_integer_is_one_by_its_value() {
    for (text, value) in [
        ("0", Some(0)),
        ("-0", Some(0)),
        ("7", Some(7)),
        ("7.0", Some(7)),
        ("70e-1", Some(7)),
        ("7.5", None),
        ("-7", None),
        ("-7.0", None),
        ("9007199254740991", Some(MAX_SAFE_INTEGER)),
        ("9007199254740991.0", Some(MAX_SAFE_INTEGER)),
        ("9007199254740992", None),
        ("9007199254740992.0", None),
        ("18446744073709551616", None),
        ("1e300", None),
        ("\"7\"", None),
        ("true", None),
        ("null", None),
        ("[7]", None),
    ] {
        assert_eq!(integer(&serde_json::from_str(text).unwrap()), value, "{text}");
    }
}

const POINT: &str = r#"{"type":"Point","coordinates":[13.4,52.5]}"#;

/// A value, or something like one, among the properties of a body that is good otherwise.
fn in_properties(value: &str) -> String {
    format!(r#"{{"geometry":{POINT},"properties":{{"a":{value}}}}}"#)
}

fn in_properties_bytes(value: &[u8]) -> Vec<u8> {
    let before = format!(r#"{{"geometry":{POINT},"properties":{{"a":"#);
    [before.as_bytes(), value, b"}}"].concat()
}

fn nested(open: &str, inner: &str, close: &str, depth: usize) -> String {
    format!("{}{inner}{}", open.repeat(depth), close.repeat(depth))
}

fn not_json(name: &str, body: impl AsRef<[u8]>) {
    let error = object(body.as_ref()).expect_err(name);
    assert_eq!((error.code, error.pointer), (Code::InvalidJson, None), "{name}");
}

#[test]
fn what_is_no_json_is_refused() {
    const MIB: usize = 1024 * 1024;
    not_json("nothing", "");
    not_json("white space", " \r\n\t");
    not_json("cut off between values", r#"{"geometry":{"type":"Point","coordinates":[1,2]"#);
    not_json("cut off inside a string", r#"{"geometry":{"type":"Poi"#);
    not_json("cut off inside an escape", r#"{"geometry":{"type":"\u00"#);
    not_json("cut off after a colon", r#"{"geometry":"#);
    not_json("trailing comma in an object", format!(r#"{{"geometry":{POINT},}}"#));
    not_json("trailing comma in an array", r#"{"geometry":{"type":"Point","coordinates":[1,2,]}}"#);
    not_json("two values", format!(r#"{{"geometry":{POINT}}}{{"geometry":{POINT}}}"#));
    not_json("two lines of JSON", format!("{{\"geometry\":{POINT}}}\n{{\"geometry\":{POINT}}}\n"));
    not_json("a NUL behind", format!("{{\"geometry\":{POINT}}}\0"));
    not_json("a bracket too much", format!(r#"{{"geometry":{POINT}}}}}"#));
    not_json("missing comma", format!(r#"{{"geometry":{POINT} "properties":{{}}}}"#));
    not_json("missing colon", format!(r#"{{"geometry" {POINT}}}"#));
    not_json("single quotes", "{'geometry':{'type':'Point','coordinates':[1,2]}}");
    not_json("names without quotes", format!("{{geometry:{POINT}}}"));
    not_json("a number as a name", format!(r#"{{"geometry":{POINT},1:2}}"#));
    not_json("a comment", format!(r#"{{"geometry":{POINT}/* here */}}"#));
    not_json("a form", "geometry=%7B%7D&properties=1");
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
        not_json(&format!("the number {number}"), body);
    }
    not_json("a number beyond a double in properties", in_properties("1e400"));
    for (name, text) in [
        ("a lone high surrogate", r#""\ud800""#),
        ("a lone low surrogate", r#""\udc00""#),
        ("a high surrogate before a letter", r#""\ud83da""#),
        ("two high surrogates", r#""\ud83d\ud83d""#),
        ("an escape JSON does not have", r#""\x41""#),
        ("a line break in a string", "\"a\nb\""),
        ("a NUL in a string", "\"a\0b\""),
    ] {
        not_json(name, in_properties(text));
    }
    not_json("a lone surrogate in a name", format!(r#"{{"geometry":{POINT},"\udfff":1}}"#));
    for (name, bytes) in [
        ("a byte that is never UTF-8", &b"\"\xff\""[..]),
        ("Latin-1", b"\"caf\xe9\""),
        ("UTF-8 cut off", b"\"\xe2\x9b\""),
        ("an overlong slash", b"\"\xc0\xaf\""),
        ("a surrogate in UTF-8", b"\"\xed\xa0\x80\""),
        ("beyond Unicode", b"\"\xf4\x90\x80\x80\""),
    ] {
        not_json(name, in_properties_bytes(bytes));
    }
    not_json("a byte that is never UTF-8, in a name", b"{\"geometry\":null,\"\xff\":1}");
    not_json("a byte that is never UTF-8, between values", b"{\"geometry\":\xff null}");
    not_json("two byte order marks", format!("\u{feff}\u{feff}{{\"geometry\":{POINT}}}"));
    not_json("a byte order mark and nothing", "\u{feff}");
    let utf_16: Vec<u8> =
        format!(r#"{{"geometry":{POINT}}}"#).encode_utf16().flat_map(u16::to_le_bytes).collect();
    not_json("UTF-16", utf_16);
    // 128 levels with those around them.
    not_json("arrays nested too deep", in_properties(&nested("[", "1", "]", 126)));
    not_json("objects nested too deep", in_properties(&nested("{\"a\":", "1", "}", 126)));
    not_json("nested too deep and nothing else", nested("[", "", "]", 128));
    not_json("nested a hundred thousand deep", nested("[", "", "]", 100_000));
    not_json("brackets that only open", "[".repeat(MIB));
    not_json("objects that only open", "{\"a\":".repeat(MIB / 5));
    let collections = nested(r#"{"type":"GeometryCollection","geometries":["#, POINT, "]}", 64);
    not_json("collections nested too deep", format!(r#"{{"geometry":{collections}}}"#));
}

#[test]
fn json_of_any_look_is_accepted() {
    let good = format!(r#"{{"geometry":{POINT}}}"#);
    for body in [
        format!("\r\n\t {good} \n"),
        in_properties(&nested("[", "1", "]", 125)),
        in_properties(&nested("{\"a\":", "1", "}", 125)),
        in_properties(r#""\ud83d\ude8c""#),
        in_properties(r#""a\u0000b""#),
        in_properties(r#""'\"\\\/\b\f\n\r\t\u2028%00\u007f; DROP TABLE location""#),
        in_properties("1e-400"),
    ] {
        assert!(object(body.as_bytes()).is_ok(), "{body:.100}");
    }
}

#[test]
fn the_body_is_an_object() {
    for body in ["[]", "[{}]", r#""{}""#, "42", "null", "true"] {
        let error = object(body.as_bytes()).expect_err(body);
        assert_eq!((error.code, error.pointer.as_deref()), (Code::InvalidBody, Some("")), "{body}");
    }
}

#[test]
fn no_member_is_there_twice() {
    for (body, pointer) in [
        (r#"{"geometry":null,"geometry":1}"#, "/geometry"),
        (r#"{"geometry":{"coordinates":[1,2],"c\u006Fordinates":[3,4]}}"#, "/geometry/coordinates"),
        (r#"{"id":1,"\u0069d":1}"#, "/id"),
        (r#"{"a":1,"b":{"c":[0,{"x":1,"y":2,"x":3}]}}"#, "/b/c/1/x"),
        (r#"{"a/b~c":1,"a/b~c":2}"#, "/a~1b~0c"),
        (r#"{"":1,"":2}"#, "/"),
        (r#"{"é":1,"\u00e9":2}"#, "/é"),
        (r#"{"\ud83d\ude8c":1,"🚌":2}"#, "/🚌"),
        (r#"{"bbox":[0,0,1,1],"more":[{"a":1,"a":2}]}"#, "/more/0/a"),
    ] {
        let error = object(body.as_bytes()).expect_err(body);
        assert_eq!((error.code, error.pointer.as_deref()), (Code::DuplicateMember, Some(pointer)), "{body}");
    }
    for body in [r#"{"a":1,"A":2}"#, r#"{"a":{"a":{"a":1}}}"#, r#"[{"a":1},{"a":1}]"#] {
        let found = object(body.as_bytes()).map_err(|error| error.code);
        assert_ne!(found, Err(Code::DuplicateMember), "{body}");
    }
}
