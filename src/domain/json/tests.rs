//! What is read as JSON. Bodies that are refused stand in `tests/cases/`; `location/tests.rs` decodes them.

use super::*;
use crate::domain::cases::{
    POINT,
    bodies::{in_properties, nested},
};

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
fn names_that_only_look_the_same_are_accepted() {
    for body in [r#"{"a":1,"A":2}"#, r#"{"a":{"a":{"a":1}}}"#] {
        assert!(object(body.as_bytes()).is_ok(), "{body}");
    }
    let error = object(br#"[{"a":1},{"a":1}]"#).unwrap_err();
    assert_eq!(error.code, Code::InvalidBody);
}
