//! Which pages may call, and which may not.

use super::*;

/// Headers of an answer that a web page's browser reads.
fn cors(response: &Response) -> (Option<&str>, Option<&str>) {
    let text = |name: &str| response.headers().get(name).map(|value| value.to_str().expect("text"));
    (text("access-control-allow-origin"), text("access-control-allow-credentials"))
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
