//! HTTP around the bodies: paths, methods, headers, web pages of other origins, lists and their pages,
//! the merge of properties, health.

use std::collections::HashSet;

use georoom::domain::error::Code;
use reqwest::{Method, Response, StatusCode, header};
use sea_orm::ConnectionTrait;
use serde_json::{Map, Value, json};

use crate::{
    on_both_databases,
    support::{Db, TestServer, answer, point, problem::Problem},
};

on_both_databases!(
    a_list_is_newest_created_first_then_higher_id,
    paging_shows_every_location_once,
    only_a_list_without_filters_has_a_total,
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

/// Headers of an answer that a web page's browser reads.
fn cors(response: &Response) -> (Option<&str>, Option<&str>) {
    let text = |name: &str| response.headers().get(name).map(|value| value.to_str().expect("text"));
    (text("access-control-allow-origin"), text("access-control-allow-credentials"))
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

/// Headers that pages send, their own and those of the libraries they use.
const ASKED_HEADERS: [&str; 7] = [
    "authorization",
    "content-type",
    "if-none-match",
    "x-share-token",
    "x-requested-with",
    "traceparent",
    "cache-control",
];

/// A request as a web page of that origin sends it; then the preflight of one.
async fn from_page(server: &TestServer, origin: &str) -> (Response, Response) {
    let url = format!("{}/location", server.api);
    let answer = server.http.get(&url).header(header::ORIGIN, origin).send().await.expect("an answer");
    let preflight = server.http.request(Method::OPTIONS, format!("{url}/1"));
    let preflight = preflight
        .header(header::ORIGIN, origin)
        .header(header::ACCESS_CONTROL_REQUEST_METHOD, "PUT")
        .header(header::ACCESS_CONTROL_REQUEST_HEADERS, ASKED_HEADERS.join(","));
    (answer, preflight.send().await.expect("an answer"))
}

#[track_caller]
fn lets_in(origin: &str, (answer, preflight): &(Response, Response)) {
    assert_eq!(answer.status(), StatusCode::OK, "{origin}");
    assert!(preflight.status().is_success(), "{origin}");
    for response in [answer, preflight] {
        assert_eq!(cors(response), (Some(origin), Some("true")), "{origin}");
        // A cache must not show one page what another was told.
        let vary = response.headers()[header::VARY].to_str().expect("text").to_ascii_lowercase();
        assert!(vary.split(", ").any(|name| name == "origin"), "{origin}: {vary}");
    }
    let list = |name: &str| -> HashSet<String> {
        let text = preflight.headers()[name].to_str().expect("text").to_ascii_lowercase();
        text.split(',').map(|item| item.trim().to_owned()).collect()
    };
    for method in ["get", "post", "put", "patch", "delete"] {
        assert!(list("access-control-allow-methods").contains(method), "{origin}: {method}");
    }
    for name in ASKED_HEADERS {
        assert!(list("access-control-allow-headers").contains(name), "{origin}: {name}");
    }
    let exposed =
        answer.headers()["access-control-expose-headers"].to_str().expect("text").to_ascii_lowercase();
    for name in ["etag", "location", "x-request-id"] {
        assert!(exposed.split(',').any(|item| item.trim() == name), "{origin}: {exposed}");
    }
}

#[track_caller]
fn keeps_out(origin: &str, (answer, preflight): &(Response, Response)) {
    for response in [answer, preflight] {
        assert_eq!(cors(response).0, None, "{origin}");
    }
}

#[tokio::test]
async fn on_loopback_pages_of_this_machine_may_call() {
    let server = TestServer::start(Db::Sqlite).await;
    for origin in [
        "http://localhost",
        "http://localhost:5173",
        "https://localhost:8443",
        "http://127.0.0.1:8080",
        "http://[::1]:3000",
    ] {
        lets_in(origin, &from_page(&server, origin).await);
    }
    for origin in [
        "https://map.example.org",
        "http://localhost.example.org",
        "http://127.0.0.1.example.org",
        "http://example.org:127",
        "http://localhost@example.org",
        "http://192.168.0.1",
        "null",
        "file://",
        "*",
    ] {
        keeps_out(origin, &from_page(&server, origin).await);
    }
    let without = send(&server, "GET", "/location").await;
    assert_eq!((without.status(), cors(&without).0), (StatusCode::OK, None));
    // A page reads a refusal, too.
    let url = format!("{}/location/0", server.api);
    let refusal =
        server.http.get(url).header(header::ORIGIN, "http://localhost").send().await.expect("an answer");
    assert_eq!(cors(&refusal), (Some("http://localhost"), Some("true")));
    assert_eq!(refusal.status(), StatusCode::NOT_FOUND);
    server.stop().await;
}

/// A browser sends a body without a type to any server, asking nobody: with the page's origin.
#[tokio::test]
async fn a_body_without_a_type_is_taken_from_an_app_but_not_from_a_page() {
    let server = TestServer::start(Db::Sqlite).await;
    let body = json!({"geometry": point(1.0, 2.0)}).to_string();
    let post = || server.http.post(format!("{}/location", server.api)).body(body.clone());
    let from_page = post().header("origin", "https://foreign.example").send().await.unwrap();
    assert_eq!(from_page.status(), 415);
    let from_app = post().send().await.unwrap();
    assert_eq!(from_app.status(), 201);
    assert_eq!(server.get("/location").await.1["total"], 1);
    server.stop().await;
}

#[tokio::test]
async fn listed_origins_are_matched_whole() {
    let list = "https://map.example.org, http://Fleet.example.org:8080/,,";
    for open_mode in ["", "true"] {
        let settings = [("CORS_ORIGINS", list), ("OPEN_MODE", open_mode)];
        let server = TestServer::start_with(Db::Sqlite, &settings).await;
        for origin in ["https://map.example.org", "http://fleet.example.org:8080"] {
            lets_in(origin, &from_page(&server, origin).await);
        }
        for origin in [
            "http://map.example.org",
            "https://map.example.org:8443",
            "https://map.example.org.evil.example",
            "https://evil-map.example.org",
            "https://sub.map.example.org",
            "https://example.org",
            "https://map.example.org/",
            "https://map.example.org, http://fleet.example.org:8080",
            "http://fleet.example.org",
            "http://localhost:5173",
            "null",
        ] {
            keeps_out(origin, &from_page(&server, origin).await);
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn open_mode_that_was_asked_for_lets_any_page_call() {
    let server = TestServer::start_with(Db::Sqlite, &[("OPEN_MODE", "true")]).await;
    for origin in ["https://map.example.org", "http://localhost:5173", "http://192.168.0.1", "null"] {
        lets_in(origin, &from_page(&server, origin).await);
    }
    server.stop().await;
}

#[tokio::test]
async fn every_bad_parameter_is_refused() {
    let server = TestServer::start(Db::Sqlite).await;
    let id = server.create_at(1.0, 2.0).await;
    for query in [
        "page=0",
        "page=-1",
        "page=1.0",
        "page=1e1",
        "page=+1",
        "page=%201",
        "page=",
        "page",
        "page=one",
        "page=١",
        "page=99999999999999999999",
        "page=18446744073709551615",
        "perPage=0",
        "perPage=101",
        "perPage=-20",
        "perPage=20.0",
        "perPage=",
        "perPage=all",
        "perPage=18446744073709551616",
        "page=1&page=1",
        "perPage=20&perPage=20",
        "page=1&perPage=20&page=2",
        "bbox=0,0,1,1&bbox=0,0,1,1",
        "near=0,0&radius=1&radius=1",
        "userId=1&userId=1",
        "per_page=20",
        "perpage=20",
        "limit=20",
        "Page=1",
        "BBOX=0,0,1,1",
        "bbox[]=0",
        "=1",
        "x=%FF",
        "bbox=",
        "bbox=0,0,1",
        "bbox=0,0,1,1,1",
        "bbox=0,0,0,1,1,1",
        "bbox=0,0,1,1,",
        "bbox=,0,0,1,1",
        "bbox=0;0;1;1",
        "bbox=0%200%201%201",
        "bbox=0,%200,1,1",
        "bbox=[0,0,1,1]",
        "bbox=w,s,e,n",
        "bbox=0x1,0,1,1",
        "bbox=NaN,0,1,1",
        "bbox=0,0,inf,1",
        "bbox=0,-infinity,1,1",
        "bbox=0,0,1e999,1",
        "bbox=-540.0000001,0,1,1",
        "bbox=0,0,540.0000001,1",
        "bbox=0,-90.0000001,1,1",
        "bbox=0,0,1,90.0000001",
        "bbox=0,1,1,0",
        "bbox=170,1,-170,0",
        "near=0,0",
        "radius=10",
        "bbox=0,0,1,1&radius=10",
        "near=&radius=10",
        "near=1&radius=10",
        "near=1,2,3&radius=10",
        "near=a,b&radius=10",
        "near=NaN,0&radius=10",
        "near=180.0000001,0&radius=10",
        "near=-180.0000001,0&radius=10",
        "near=0,90.0000001&radius=10",
        "near=0,-90.0000001&radius=10",
        "near=0,0&radius=",
        "near=0,0&radius=-1",
        "near=0,0&radius=-0.001",
        "near=0,0&radius=NaN",
        "near=0,0&radius=inf",
        "near=0,0&radius=1e999",
        "near=0,0&radius=10m",
        "near=0,0&radius=1,0",
    ] {
        let path = format!("/location?{query}");
        refused(&server, "GET", &path, 422, Code::InvalidParameter).await;
    }
    for user in ["", "-1", "1.0", "me", "9007199254740992", "%201"] {
        for (method, path) in [
            ("GET", "/location".to_owned()),
            ("GET", format!("/location/{id}")),
            ("DELETE", format!("/location/{id}")),
        ] {
            refused(&server, method, &format!("{path}?userId={user}"), 422, Code::InvalidUserId).await;
        }
    }
    for query in ["page=1", "x", "userId=1&userId=1", "bbox=0,0,1,1"] {
        for method in ["GET", "DELETE"] {
            let path = format!("/location/{id}?{query}");
            refused(&server, method, &path, 422, Code::InvalidParameter).await;
        }
    }
    for query in ["userId=0", "_=1795221296000", "_dc=1&userId=0"] {
        assert_eq!(server.get(&format!("/location/{id}?{query}")).await.0, StatusCode::OK, "{query}");
        assert_eq!(server.get(&format!("/location/{id}/history?{query}")).await.0, StatusCode::OK, "{query}");
    }
    server.stop().await;
}

#[tokio::test]
async fn good_parameters_are_taken_to_their_ends() {
    let server = TestServer::start(Db::Sqlite).await;
    let id = server.create_at(-180.0, 10.0).await;
    let (_, list) = server.get("/location").await;
    assert_eq!(list["type"], "FeatureCollection");
    assert_eq!((&list["page"], &list["perPage"], &list["total"]), (&json!(1), &json!(20), &json!(1)));
    for (query, page, per_page, found) in [
        ("perPage=1", 1, 1, true),
        ("perPage=100", 1, 100, true),
        ("page=2", 2, 20, false),
        ("page=1000000000&perPage=100", 1_000_000_000, 100, false),
        ("userId=7", 1, 20, true),
        ("userId=9007199254740991&page=1", 1, 20, true),
        ("%70age=1&per%50age=5", 1, 5, true),
        ("bbox=-180,-90,180,90", 1, 20, true),
        ("bbox=-180%2C-90%2C180%2C90", 1, 20, true),
        ("bbox=-1.8e2,10.0,-180,1e1", 1, 20, true),
        ("bbox=179,9,-179,11", 1, 20, true),
        ("bbox=180,10,-180,10", 1, 20, true),
        ("bbox=-179.9,9,179.9,11", 1, 20, false),
        ("bbox=170,9,190,11", 1, 20, true),
        ("bbox=-190,9,-170,11", 1, 20, true),
        ("bbox=180,9,190,11", 1, 20, true),
        ("bbox=181,9,539,11", 1, 20, false),
        ("_=1795221296000&perPage=7&_dc=1", 1, 7, true),
        ("_=1&_=2", 1, 20, true),
        ("near=-180,10&radius=0", 1, 20, true),
        ("near=180,10&radius=0.001", 1, 20, true),
        ("near=-180%2C10&radius=5", 1, 20, true),
        ("near=0,-90&radius=1e7", 1, 20, false),
        ("near=0,90&radius=1e300", 1, 20, true),
        ("near=-180,10&radius=5&bbox=-180,9,-179,11&perPage=3", 1, 3, true),
        ("near=-180,10&radius=5&bbox=0,9,1,11", 1, 20, false),
    ] {
        let response = send(&server, "GET", &format!("/location?{query}")).await;
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/geo+json", "{query}");
        let (status, list) = answer(response).await;
        assert_eq!(status, StatusCode::OK, "{query}: {list}");
        assert_eq!((&list["page"], &list["perPage"]), (&json!(page), &json!(per_page)), "{query}");
        assert_eq!(ids(&list), if found { vec![id] } else { Vec::new() }, "{query}");
    }
    server.stop().await;
}

async fn only_a_list_without_filters_has_a_total(db: Db) {
    let server = TestServer::start(db).await;
    for query in ["", "?bbox=-1,-1,1,1", "?near=0,0&radius=10"] {
        let (_, list) = server.get(&format!("/location{query}")).await;
        assert_eq!(list["features"], json!([]), "{query}");
        assert_eq!(list.get("total"), query.is_empty().then_some(&json!(0)), "{query}");
    }
    let first = server.create_at(0.0, 0.0).await;
    server.create_at(0.0, 0.0).await;
    let (_, page) = server.get("/location?page=3&perPage=1").await;
    assert_eq!((&page["features"], &page["total"]), (&json!([]), &json!(2)));
    let (_, near) = server.get("/location?near=0,0&radius=10").await;
    assert_eq!(near["features"][0]["properties"]["distance"], 0.0);
    assert_eq!(near.get("total"), None);
    server.delete(first).await;
    assert_eq!(server.get("/location").await.1["total"], 1);
    server.stop().await;
}

async fn a_list_is_newest_created_first_then_higher_id(db: Db) {
    let server = TestServer::start(db).await;
    let mut made = Vec::new();
    for _ in 0..6 {
        made.push(server.create_at(0.0, 0.0).await);
    }
    // Clocks are set back, and many are made in one millisecond.
    let database = server.database.open().await;
    for (id, created_at) in made.iter().zip([5_000, 9_000, 7_000, 7_000, 1_000, 7_000]) {
        let sql = format!("UPDATE location SET created_at = {created_at} WHERE id = {id}");
        database.execute_unprepared(&sql).await.expect("an update");
    }
    database.close().await.expect("close");
    // A move makes nothing newer.
    server.move_to(made[4], 0.0, 0.0).await;
    let expected = [1, 5, 3, 2, 0, 4].map(|index: usize| made[index]);
    for query in ["", "bbox=-1,-1,1,1"] {
        assert_eq!(ids(&server.get(&format!("/location?{query}")).await.1), expected, "{query}");
        let mut paged = Vec::new();
        for page in 1..=3 {
            paged.extend(ids(&server.get(&format!("/location?{query}&perPage=2&page={page}")).await.1));
        }
        assert_eq!(paged, expected, "{query}");
    }
    server.stop().await;
}

async fn paging_shows_every_location_once(db: Db) {
    let server = TestServer::start(db).await;
    let mut made = Vec::new();
    for n in 0..45 {
        made.push(server.create_at(f64::from(n % 9) / 1000.0, f64::from(n % 5) / 1000.0).await);
        // Not in any of the lists below that filter.
        if n % 9 == 0 {
            made.push(server.create_at(50.0, 50.0).await);
        }
    }
    for (query, all) in [("", 50), ("bbox=-1,-1,1,1&", 45), ("near=0,0&radius=100000&", 45)] {
        for per_page in [1, 7, 15, 20, 100] {
            let mut seen = Vec::new();
            let mut distances = Vec::new();
            for page in 1.. {
                let (status, list) =
                    server.get(&format!("/location?{query}page={page}&perPage={per_page}")).await;
                assert_eq!(status, StatusCode::OK, "{list}");
                let found = ids(&list);
                let rest = all - seen.len();
                assert_eq!(found.len(), rest.min(per_page), "{query} page {page} of {per_page}");
                if found.is_empty() {
                    break;
                }
                seen.extend(found);
                let features = list["features"].as_array().expect("an array");
                distances
                    .extend(features.iter().filter_map(|feature| feature["properties"]["distance"].as_f64()));
            }
            let different: HashSet<u64> = seen.iter().copied().collect();
            assert_eq!((seen.len(), different.len()), (all, all), "{query} by {per_page}: {seen:?}");
            if query.starts_with("near") {
                assert_eq!(distances.len(), all);
                assert!(distances.is_sorted(), "{distances:?}");
            } else {
                assert!(seen.is_sorted_by(|a, b| a > b), "{query} by {per_page}: {seen:?}");
            }
        }
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

/// The caller's own properties of a Feature of the server's.
pub fn own(feature: &Value) -> Value {
    let mut own: Map<String, Value> = feature["properties"].as_object().expect("an object").clone();
    for name in ["version", "userId", "updatedBy", "createdAt", "updatedAt"] {
        assert!(own.shift_remove(name).is_some(), "{name}: {feature}");
    }
    own.into()
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
