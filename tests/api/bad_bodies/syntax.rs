//! Bodies that are no JSON, or JSON of another shape than a location.

use super::*;

impl Table {
    pub(super) fn syntax(&mut self) {
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

    pub(super) fn top_level(&mut self) {
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

    pub(super) fn member_types(&mut self) {
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

    pub(super) fn duplicates(&mut self) {
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
}

fn in_properties_bytes(value: &[u8]) -> Vec<u8> {
    let before = format!(r#"{{"geometry":{GOOD},"properties":{{"a":"#);
    [before.as_bytes(), value, b"}}"].concat()
}
