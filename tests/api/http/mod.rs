//! HTTP around the bodies: paths, methods, headers, web pages of other origins, lists and their pages,
//! the merge of properties, health.

mod lists;
mod origins;

use std::collections::HashSet;

use georoom::domain::error::Code;
use reqwest::{Method, Response, StatusCode, header};
use sea_orm::ConnectionTrait;
use serde_json::{Value, json};

use crate::{
    on_both_databases,
    support::{Db, TestServer, answer, features::own, point, problem::Problem},
};

on_both_databases!(
    properties_merge_as_in_the_examples_of_rfc_7396,
    a_property_may_have_any_name,
    health_and_readiness_are_told,
);

async fn send(server: &TestServer, method: &str, path: &str) -> Response {
    server.send(method.parse().expect("a method"), path, None).await
}

async fn refused(server: &TestServer, method: &str, path: &str, status: u16, code: Code) -> Problem {
    let status = StatusCode::from_u16(status).expect("a status");
    let answer = Problem::of(send(server, method, path).await).await;
    let problem = Problem::check(answer, status, code, &format!("{method} {path}"));
    assert_eq!(problem.pointer, None, "{method} {path}: there is no body to point into");
    problem
}

fn ids(list: &Value) -> Vec<u64> {
    let features = list["features"].as_array().unwrap_or_else(|| panic!("{list}"));
    features.iter().map(|feature| feature["id"].as_u64().expect("an id")).collect()
}

#[tokio::test]
async fn an_unknown_path_is_404_for_every_method() {
    let server = TestServer::start(Db::Sqlite).await;
    let id = server.create_at(1.0, 2.0).await;
    for path in [
        "/",
        "/locations",
        "/Location",
        "/LOCATION",
        "/locatio",
        "/api/location",
        "//location",
        "/location//",
        "/location;v=1",
        "/location.json",
        "/healthz/x",
        "/Healthz",
        "/readyz.txt",
        "/socket.io/",
        "/openapi.json",
        "/favicon.ico",
        &format!("/location//{id}"),
        &format!("/location/{id}/x"),
        &format!("/location/{id}/geometry/coordinates"),
        &format!("/location/{id}//"),
    ] {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW"] {
            refused(&server, method, path, 404, Code::NotFound).await;
        }
        let head = send(&server, "HEAD", path).await;
        assert_eq!(head.status(), StatusCode::NOT_FOUND, "{path}");
    }
    for id in ["0", "01", "+1", "-1", "1.0", "1e0", "abc", "%31%00", "%FF", "9007199254740992", "١"] {
        for method in ["GET", "DELETE"] {
            refused(&server, method, &format!("/location/{id}"), 404, Code::NotFound).await;
        }
    }
    let long = format!("/location/{}", "9".repeat(8_000));
    let problem = refused(&server, "GET", &long, 404, Code::NotFound).await;
    assert!(problem.detail.len() < 200, "{problem:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_wrong_method_is_405_and_says_which_are_right() {
    let server = TestServer::start(Db::Sqlite).await;
    // Nobody's, so that a method that is right does no harm.
    for path in ["/location", "/location/9007199254740991", "/location/x", "/healthz", "/readyz"] {
        let refusal = send(&server, "BREW", path).await;
        assert_eq!(refusal.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
        let allow = refusal.headers()[header::ALLOW].to_str().expect("text").to_owned();
        let allowed: HashSet<&str> = allow.split(", ").collect();
        assert!(allowed.contains("GET") && allowed.contains("HEAD"), "{path}: {allow}");
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "OPTIONS", "get", "PROPFIND"]
        {
            let answer = send(&server, method, path).await;
            if allowed.contains(method) {
                assert_ne!(answer.status(), StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
            } else if method != "OPTIONS" {
                assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
                assert_eq!(answer.headers()[header::ALLOW], *allow, "{method} {path}");
                let about = format!("{method} {path}");
                let status = StatusCode::METHOD_NOT_ALLOWED;
                Problem::check(Problem::of(answer).await, status, Code::MethodNotAllowed, &about);
            }
        }
    }
    for (path, right) in [
        ("/location", "GET, HEAD, POST, PUT, OPTIONS"),
        ("/location/1", "GET, HEAD, PUT, DELETE, OPTIONS"),
        ("/healthz", "GET, HEAD"),
        ("/readyz", "GET, HEAD"),
    ] {
        assert_eq!(send(&server, "PATCH", path).await.headers()[header::ALLOW], right, "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn head_is_get_without_a_body() {
    let server = TestServer::start(Db::Sqlite).await;
    let id = server.create_at(1.0, 2.0).await;
    for path in [
        "/location",
        "/location?perPage=101",
        &format!("/location/{id}"),
        "/location/0",
        "/healthz",
        "/readyz",
        "/nowhere",
    ] {
        let (get, head) = (send(&server, "GET", path).await, send(&server, "HEAD", path).await);
        assert_eq!(get.status(), head.status(), "{path}");
        for name in [header::CONTENT_TYPE, header::ETAG, header::CONTENT_LENGTH] {
            assert_eq!(get.headers().get(&name), head.headers().get(&name), "{path}: {name}");
        }
        assert!(!get.bytes().await.expect("a body").is_empty(), "{path}");
        assert!(head.bytes().await.expect("a body").is_empty(), "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn one_slash_or_an_empty_query_behind_a_path_changes_nothing() {
    let server = TestServer::start(Db::Sqlite).await;
    let id = server.create_at(1.0, 2.0).await;
    let one = format!("/location/{id}");
    for path in ["/location", &one, "/healthz", "/readyz"] {
        let as_it_is = server.get(path).await;
        assert_eq!(as_it_is.0, StatusCode::OK, "{path}");
        for behind in ["/", "?", "/?"] {
            assert_eq!(server.get(&format!("{path}{behind}")).await, as_it_is, "{path}{behind}");
        }
    }
    assert_eq!(server.get("/location?&page=1&").await, server.get("/location").await);
    server.stop().await;
}

#[tokio::test]
async fn every_answer_has_a_request_id() {
    let server = TestServer::start(Db::Sqlite).await;
    let id = server.create_at(1.0, 2.0).await;
    let mut given = HashSet::new();
    for (method, path) in [
        ("GET", "/location"),
        ("HEAD", "/location"),
        ("OPTIONS", "/location"),
        ("PATCH", "/location"),
        ("POST", "/location"),
        ("GET", "/location?perPage=0"),
        ("GET", &format!("/location/{id}")),
        ("GET", "/location/0"),
        ("GET", "/nowhere"),
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("DELETE", &format!("/location/{id}")),
    ] {
        let answer = send(&server, method, path).await;
        let made_up = answer.headers()["x-request-id"].to_str().expect("text").to_owned();
        assert!(made_up.len() >= 16, "{method} {path}: {made_up}");
        assert!(given.insert(made_up), "{method} {path}: the id of another answer");

        let sent = format!("my-{method}-{path}");
        let method: Method = method.parse().expect("a method");
        let request = server.http.request(method, format!("{}{path}", server.api));
        let answer = request.header("X-Request-ID", &sent).send().await.expect("an answer");
        assert_eq!(answer.headers().get_all("x-request-id").iter().collect::<Vec<_>>(), [&*sent]);
    }
    // What is not fit for a log is not taken over.
    for unfit in [&b""[..], b"two words", b"\xff\xfe", &[b'x'; 129]] {
        let request = server.http.get(format!("{}/healthz", server.api)).header("X-Request-ID", unfit);
        let answer = request.send().await.expect("an answer");
        let id = answer.headers()["x-request-id"].to_str().expect("text");
        assert_eq!(id.len(), 32, "{id}");
    }
    server.stop().await;
}

/// RFC 7396, appendix A: original, patch, result; as far as all three are objects.
fn merges() -> Vec<(Value, Value, Value)> {
    vec![
        (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
        (json!({"a": "b"}), json!({"a": null}), json!({})),
        (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
        (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
        (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
        (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
        (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
        (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        // Section 3's own.
        (
            json!({
                "title": "Goodbye!", "author": {"givenName": "John", "familyName": "Doe"},
                "tags": ["example", "sample"], "content": "This will be unchanged",
            }),
            json!({
                "title": "Hello!", "phoneNumber": "+01-123-456-7890", "author": {"familyName": null},
                "tags": ["example"],
            }),
            json!({
                "title": "Hello!", "author": {"givenName": "John"}, "tags": ["example"],
                "content": "This will be unchanged", "phoneNumber": "+01-123-456-7890",
            }),
        ),
    ]
}

async fn properties_merge_as_in_the_examples_of_rfc_7396(db: Db) {
    let server = TestServer::start(db).await;
    for (original, patch, result) in merges() {
        let about = format!("{original} and {patch}");
        let (status, made) = server.post(&json!({"geometry": point(1.0, 2.0), "properties": original})).await;
        assert_eq!(status, StatusCode::CREATED, "{about}: {made}");
        let made = &made["data"]["location"];
        assert_eq!(own(made), original, "{about}");
        let id = &made["id"];
        let (status, merged) = server.put(&json!({"id": id, "properties": patch})).await;
        assert_eq!(status, StatusCode::CREATED, "{about}: {merged}");
        let merged = &merged["data"]["updatedLocationResult"];
        assert_eq!(own(merged), result, "{about}");
        assert_eq!(merged["geometry"], made["geometry"], "{about}");
        assert_eq!(server.get(&format!("/location/{id}")).await.1, *merged, "{about}");
    }

    // What the server writes neither changes nor goes away.
    let (_, made) = server
        .post(&json!({"geometry": point(1.0, 2.0), "properties": {"version": 9, "userId": 9, "x": {"version": 9}}}))
        .await;
    let made = &made["data"]["location"];
    assert_eq!(own(made), json!({"x": {"version": 9}}));
    let patch =
        json!({"version": null, "userId": 8, "updatedBy": null, "createdAt": null, "updatedAt": "never"});
    let (_, merged) = server.put(&json!({"id": made["id"], "properties": patch})).await;
    let merged = &merged["data"]["updatedLocationResult"]["properties"];
    assert_eq!(
        (&merged["version"], &merged["userId"], &merged["updatedBy"]),
        (&json!(2), &json!(1), &json!(1))
    );
    assert_eq!(merged["createdAt"], made["properties"]["createdAt"]);
    assert_eq!(merged["x"], json!({"version": 9}));
    server.stop().await;
}

async fn a_property_may_have_any_name(db: Db) {
    let server = TestServer::start(db).await;
    for name in [
        "",
        " ",
        "a/b~c",
        "a.b",
        "$set",
        "__proto__",
        "constructor",
        "type",
        "geometry",
        "Version",
        "distance",
        "é🚌",
        "\u{0}",
        // Names with which serde_json talks to itself.
        "$serde_json::private::Number",
        "$serde_json::private::RawValue",
    ] {
        let id = server.create_at(1.0, 2.0).await;
        // Text throughout: a client's JSON library may read more into a name than there is.
        let name = json!(name).to_string();
        let property = format!(r#""in":{{{name}:"not JSON"}}"#);
        let put = async |members: &str| {
            let request = server.http.put(format!("{}/location/{id}", server.api));
            let answer = request.body(format!("{{{members}}}")).send().await.expect("an answer");
            (answer.status(), answer.text().await.expect("text"))
        };
        let (status, text) = put(&format!(r#""properties":{{{property}}}"#)).await;
        assert_eq!(status, StatusCode::CREATED, "{name}: {text}");
        assert!(text.contains(&property), "{name}: {text}");
        let (status, text) = put(r#""properties":{"more":1}"#).await;
        assert_eq!(status, StatusCode::CREATED, "{name}: {text}");
        assert!(text.contains(&property), "{name}: {text}");
        for path in
            [format!("/location/{id}"), "/location".to_owned(), "/location?near=1,2&radius=10".to_owned()]
        {
            let answer = send(&server, "GET", &path).await;
            let (status, text) = (answer.status(), answer.text().await.expect("text"));
            assert_eq!(status, StatusCode::OK, "{name}: {path}: {text}");
            assert!(text.contains(&property), "{name}: {path}: {text}");
        }
        server.delete(id).await;
    }
    server.stop().await;
}

async fn health_and_readiness_are_told(db: Db) {
    let server = TestServer::start(db).await;
    for path in ["/healthz", "/readyz"] {
        let response = send(&server, "GET", path).await;
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json", "{path}");
        assert_eq!(answer(response).await, (StatusCode::OK, json!({"status": "ok"})), "{path}");
        for method in ["POST", "PUT", "DELETE"] {
            refused(&server, method, path, 405, Code::MethodNotAllowed).await;
        }
    }
    server.stop().await;
}
