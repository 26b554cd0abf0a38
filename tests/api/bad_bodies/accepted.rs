//! What only looks bad.

use super::*;

on_one_database!(
    what_only_looks_bad_is_accepted,
    an_id_is_taken_in_every_form_that_means_it,
    properties_fill_64_kib_to_the_last_byte,
);

async fn what_only_looks_bad_is_accepted(db: Db) {
    let server = TestServer::start(db).await;
    let good = format!(r#"{{"geometry":{POINT}}}"#);
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
                nested(r#"{"type":"GeometryCollection","geometries":["#, POINT, "]}", 60)
            ),
        ),
        ("a Feature", format!(r#"{{"type":"Feature","geometry":{POINT},"properties":{{}}}}"#)),
        ("null properties", format!(r#"{{"geometry":{POINT},"properties":null}}"#)),
        ("an id that is the sender's", format!(r#"{{"id":"f1","geometry":{POINT}}}"#)),
        ("a byte order mark", format!("\u{feff}{{\"geometry\":{POINT}}}")),
        ("foreign members", format!(r#"{{"geometry":{POINT},"bbox":[0,0,1,1],"more":1,"":null}}"#)),
        ("names of GeoJSON among the properties", in_properties(r#"{"coordinates":[],"features":1}"#)),
        (
            "foreign members in the geometry",
            r#"{"geometry":{"type":"Point","coordinates":[1,2],"bbox":0}}"#.into(),
        ),
        ("user 0", format!(r#"{{"userId":0,"geometry":{POINT}}}"#)),
        ("user 0 with a sign", format!(r#"{{"userId":-0,"geometry":{POINT}}}"#)),
        ("a user with a fraction of nothing", format!(r#"{{"userId":7.0,"geometry":{POINT}}}"#)),
        ("a user in text", format!(r#"{{"userId":"7","geometry":{POINT}}}"#)),
        ("the largest user", format!(r#"{{"userId":9007199254740991,"geometry":{POINT}}}"#)),
        ("names that differ in case", format!(r#"{{"geometry":{POINT},"properties":{{"a":1,"A":2}}}}"#)),
        (
            "the same name in two objects",
            format!(r#"{{"geometry":{POINT},"properties":{{"a":{{"a":{{"a":1}}}}}}}}"#),
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
        let body = format!(r#"{{"id":{id},"userId":"8","geometry":{POINT}}}"#);
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
        let body = format!(r#"{{"id":{other},"geometry":{POINT}}}"#);
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
