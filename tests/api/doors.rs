//! Clients of every language connect, whatever origin they send and however they frame their packets, and a refused client
//! is told why. Stock clients run where their language can be installed as a package; for the others their handshakes are
//! replayed.

use std::process::Stdio;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{
    Method, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_ORIGIN, CONTENT_TYPE, ETAG, HeaderMap,
        HeaderValue, IF_NONE_MATCH, ORIGIN,
    },
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use crate::support::{
    Db, TestServer,
    clients::{Clients, KINDS, PATIENCE},
    nginx::Nginx,
    polling::{Polling, open_session},
    tokens::{LOCKED, Pass, knock, token},
    websocket::WebSocket,
};

const OWNER: u64 = 10;

/// What apps, libraries and pages send, of which only some are listed.
#[tokio::test(flavor = "multi_thread")]
async fn with_a_key_any_origin_gets_in_by_token_and_only_listed_pages_may_read() {
    let settings =
        [LOCKED, &[("CORS_ORIGINS", "https://Map.example:443/,capacitor://localhost,file://,null")]];
    let server = TestServer::start_with(Db::Sqlite, &settings.concat()).await;
    let clients = Clients::start();
    let own = format!("ws://{}", server.addrs.1);
    for (origin, may_read) in [
        ("https://map.example", true),
        ("capacitor://localhost", true),
        ("file://", true),
        ("null", true),
        (&*own, true),
        (&*server.gateway, true),
        ("ionic://localhost", false),
        ("http://localhost:5173", false),
        ("https://map.example.evil.example", false),
        ("https://evil.example", false),
    ] {
        for kind in KINDS {
            let mut opts = Pass::user(OWNER).opts(kind);
            opts["extraHeaders"] = json!({"Origin": origin});
            let saw = clients.open(kind.0, &server.gateway, opts).next().await;
            assert_eq!(saw["kind"], "connect", "{kind:?} {origin}: {saw}");
        }
        let headers = HeaderMap::from_iter([(ORIGIN, HeaderValue::from_str(origin).expect("an origin"))]);
        let said = knock(&server, &[], &headers, "").await;
        assert_eq!(said, Err("unauthorized".to_owned()), "{origin}");
        let polling = format!("{}/socket.io/?EIO=4&transport=polling", server.gateway);
        for url in [polling, format!("{}/healthz", server.api)] {
            // The API has an origin of its own.
            let may_read =
                may_read && !(url.starts_with(&server.api) && origin.contains(&server.addrs.1.to_string()));
            let answer = server.http.get(&url).headers(headers.clone()).send().await.expect("an answer");
            assert_eq!(answer.status(), StatusCode::OK, "{origin} {url}");
            let allowed = |name| answer.headers().get(name).map(|value| value.to_str().expect("text"));
            assert_eq!(allowed(ACCESS_CONTROL_ALLOW_ORIGIN), may_read.then_some(origin), "{url}");
            assert_eq!(
                allowed(ACCESS_CONTROL_ALLOW_CREDENTIALS),
                may_read.then_some("true"),
                "{origin} {url}"
            );
        }
    }
    server.stop().await;
}

/// The head of a client's request, and what it sends before and after it is connected to the namespace.
struct Recorded {
    name: &'static str,
    /// The path that its session begins with by long-polling, if it does.
    begin: &'static str,
    /// With `{host}`, `{token}` and, for a session that has begun by long-polling, `{sid}`.
    head: &'static str,
    frames: &'static [&'static str],
}

/// Swift's client is of Starscream, Java's and React Native's of OkHttp. Swift's sends a packet that means nothing once it
/// has changed over. Arduino's does not wait for the answer to its
/// probe, in older releases sends none, and names the main namespace.
const RECORDED: [Recorded; 10] = [
    Recorded {
        name: "Swift",
        begin: "",
        head: "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {host}\r\nSec-WebSocket-Key: {key}\r\n\
               Sec-WebSocket-Version: 13\r\nOrigin: ws://{host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
               Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits; server_max_window_bits=15",
        frames: &[r#"40{"token":"{token}"}"#],
    },
    Recorded {
        name: "Swift, from long-polling",
        begin: "/socket.io/?transport=polling&b64=1&EIO=4",
        head: "GET /socket.io/?transport=websocket&EIO=4&sid={sid} HTTP/1.1\r\nHost: {host}\r\n\
               Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nOrigin: ws://{host}\r\n\
               Upgrade: websocket\r\nConnection: Upgrade\r\n\
               Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits; server_max_window_bits=15",
        frames: &["2probe", "5", r#"40{"token":"{token}"}"#, "6"],
    },
    Recorded {
        name: "Swift, protocol 3",
        begin: "",
        head: "GET /socket.io/?transport=websocket&token={token}&EIO=3 HTTP/1.1\r\nOrigin: ws://{host}\r\n\
               Host: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
               Sec-WebSocket-Key: {key}",
        frames: &[],
    },
    Recorded {
        name: "React Native, Android",
        begin: "",
        head: "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\norigin: http://{host}\r\nUpgrade: websocket\r\n\
               Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\
               Sec-WebSocket-Extensions: permessage-deflate\r\nHost: {host}\r\nAccept-Encoding: gzip\r\n\
               User-Agent: okhttp/4.12.0",
        frames: &[r#"40{"token":"{token}"}"#],
    },
    Recorded {
        name: "Java",
        begin: "",
        head: "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
               Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\
               Sec-WebSocket-Extensions: permessage-deflate\r\nHost: {host}\r\nAccept-Encoding: gzip\r\n\
               User-Agent: okhttp/3.12.12",
        frames: &[r#"40{"token":"{token}"}"#],
    },
    Recorded {
        name: "C#",
        begin: "/socket.io/?EIO=4&transport=polling",
        head: "GET /socket.io/?EIO=4&transport=websocket&sid={sid} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\n\
               Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}",
        frames: &["2probe", "5", r#"40{"token":"{token}"}"#],
    },
    Recorded {
        name: "Dart",
        begin: "",
        head: "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nuser-agent: Dart/3.5 (dart:io)\r\n\
               connection: Upgrade\r\ncache-control: no-cache\r\naccept-encoding: gzip\r\nhost: {host}\r\n\
               sec-websocket-version: 13\r\nupgrade: websocket\r\nsec-websocket-key: {key}\r\n\
               sec-websocket-extensions: permessage-deflate; client_max_window_bits",
        frames: &[r#"40{"token":"{token}"}"#],
    },
    Recorded {
        name: "Arduino",
        begin: "/socket.io/?EIO=4&transport=polling",
        head: "GET /socket.io/?EIO=4&transport=websocket&sid={sid} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\n\
               Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\
               Sec-WebSocket-Protocol: arduino\r\nOrigin: file://\r\nUser-Agent: arduino-WebSocket-Client",
        frames: &["2probe", "5", r#"40/,{"token":"{token}"}"#],
    },
    Recorded {
        name: "Arduino, older",
        begin: "/socket.io/?EIO=4&transport=polling",
        head: "GET /socket.io/?EIO=4&transport=websocket&sid={sid} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\n\
               Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\
               Sec-WebSocket-Protocol: arduino\r\nOrigin: file://\r\nUser-Agent: arduino-WebSocket-Client",
        frames: &["5", r#"40/,{"token":"{token}"}"#],
    },
    Recorded {
        name: "Arduino, protocol 3",
        begin: "/socket.io/?EIO=3&token={token}&transport=polling",
        head: "GET /socket.io/?EIO=3&token={token}&transport=websocket&sid={sid} HTTP/1.1\r\nHost: {host}\r\n\
               Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
               Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: arduino\r\nOrigin: file://\r\n\
               User-Agent: arduino-WebSocket-Client",
        frames: &["2probe", "5"],
    },
];

impl Recorded {
    /// Begins a session by long-polling, if this client does; returns its id.
    async fn begin(&self, server: &TestServer, token: &str) -> String {
        if self.begin.is_empty() {
            return String::new();
        }
        let request = server.http.get(format!("{}{}", server.gateway, self.begin.replace("{token}", token)));
        open_session(request.header(ORIGIN, "file://")).await
    }

    /// Connects, and sends all its frames without waiting.
    async fn connect(&self, server: &TestServer, token: &str) -> WebSocket {
        let sid = self.begin(server, token).await;
        let filled = |text: &str| {
            let host = server.addrs.1.to_string();
            [("{host}", &*host), ("{token}", token), ("{sid}", &sid), ("{key}", "dGhlIHNhbXBsZSBub25jZQ==")]
                .iter()
                .fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
        };
        let head = filled(self.head) + "\r\n\r\n";
        let (mut socket, answer) = WebSocket::shake_hands(&server.gateway, &head, false).await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{}: {answer}", self.name);
        let offers = self.head.contains("Sec-WebSocket-Protocol");
        assert_eq!(answer.contains("sec-websocket-protocol: arduino\r\n"), offers, "{}: {answer}", self.name);
        for frame in self.frames {
            socket.send(&filled(frame)).await;
        }
        socket
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_clients_get_in_and_see_a_location_move() {
    let server = TestServer::start_with(Db::Sqlite, LOCKED).await;
    let owner = Pass::user(OWNER);
    for recorded in &RECORDED {
        let id = owner.create(&server).await;
        let mut socket = recorded.connect(&server, &token(OWNER)).await;
        // What comes before is of its session or its probe.
        while !socket.text().await.expect(recorded.name).starts_with("40") {}
        socket.join(&[id]).await;
        owner.mv(&server, id).await;
        let chat = socket.text().await.expect(recorded.name);
        assert!(
            chat.starts_with(r#"42["chat","#) && chat.contains(r#""version":2"#),
            "{}: {chat}",
            recorded.name
        );
    }
    server.stop().await;
}

/// A packet of type `6` means nothing, whoever sends it, however it is framed.
#[tokio::test(flavor = "multi_thread")]
async fn packets_that_mean_nothing_end_no_session() {
    let server = TestServer::start(Db::Sqlite).await;
    let id = server.create_at(0.5, 0.5).await;
    let mut socket = WebSocket::connect(&server.gateway).await;
    socket.send("6").await;
    socket.join(&[id]).await;
    let mut polling = Polling::connect(&server.gateway).await;
    polling.send("6").await;
    polling
        .send_all(&["6".to_owned(), r#"420["join_room",{"locationId":1}]"#.to_owned(), "6".to_owned()])
        .await;
    assert_eq!(polling.next().await, r#"430["1"]"#);

    let url = format!("{}/socket.io/?EIO=3&transport=polling", server.gateway);
    let url = format!("{url}&sid={}", open_session(server.http.get(&url)).await);
    for (body, status) in [
        (&b"1:6"[..], StatusCode::OK),
        (b"\x00\x01\xff6\x00\x01\xff2", StatusCode::OK),
        // Framed in neither way, so that the session ends.
        (b"\x00\x09\xff2", StatusCode::BAD_REQUEST),
        (b"1:2", StatusCode::BAD_REQUEST),
    ] {
        let answer = server.http.post(&url).body(body).send().await.expect("an answer");
        assert_eq!(answer.status(), status, "{}", body.escape_ascii());
    }
    server.stop().await;
}

/// A stock Python client in a process of its own (`tests/clients/client.py`).
struct Python {
    lines: Lines<BufReader<ChildStdout>>,
    /// Killed when dropped.
    _process: Child,
}

impl Python {
    fn start(server: &TestServer, generation: &str, transports: &str, token: &str, location: u64) -> Self {
        let cache =
            std::env::var("TEST_PYTHON_CLIENTS").expect("TEST_PYTHON_CLIENTS: run `tests/services/run`");
        let mut process = Command::new("python3")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/client.py"))
            .arg(format!("{cache}/python-{generation}"))
            .args([generation, &server.gateway, transports, token, &location.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("python3");
        let lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        Self { lines, _process: process }
    }

    /// What the client saw next, which must be of this kind.
    async fn saw(&mut self, kind: &str) -> Value {
        let line =
            timeout(PATIENCE, self.lines.next_line()).await.expect("something to happen").expect("text");
        let mut saw: Value = serde_json::from_str(&line.expect("a line")).expect("JSON");
        assert_eq!(saw["kind"], kind, "{saw}");
        saw["value"].take()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn python_clients_of_both_protocols_get_in_and_learn_why_they_do_not() {
    let server = TestServer::start_with(Db::Sqlite, LOCKED).await;
    let owner = Pass::user(OWNER);
    let id = owner.create(&server).await;
    for (version, (generation, transports)) in (1..).zip([
        ("5", "websocket"),
        ("5", "polling"),
        ("5", "polling,websocket"),
        ("4", "websocket"),
        ("4", "polling"),
        ("4", "polling,websocket"),
    ]) {
        let mut client = Python::start(&server, generation, transports, &token(OWNER), id);
        client.saw("connect").await;
        assert_eq!(client.saw("ack").await, json!(id.to_string()), "{generation} {transports}");
        assert_eq!(client.saw("chat").await["version"], version, "{generation} {transports}");
        // More than ASCII goes both ways, and several packets in one request.
        let mut said = Vec::new();
        for _ in 0..3 {
            said.push(client.saw("chat").await["message"].as_str().expect("text").to_owned());
        }
        // This library hands each packet to a thread of its own, so on a busy machine they overtake one another.
        said.sort_unstable();
        assert_eq!(said, ["Zoë 0", "Zoë 1", "Zoë 2"], "{generation} {transports}");
        owner.mv(&server, id).await;
        assert_eq!(client.saw("chat").await["version"], version + 1, "{generation} {transports}");
    }
    for (generation, transports) in
        [("5", "websocket"), ("5", "polling"), ("4", "websocket"), ("4", "polling")]
    {
        let mut client = Python::start(&server, generation, transports, "none", id);
        let refused = client.saw("connect_error").await;
        match generation {
            "4" => assert_eq!(refused, json!("invalid_token"), "{transports}"),
            _ => {
                assert_eq!(refused["message"], "invalid_token", "{transports}");
                assert!(refused["data"]["detail"].is_string(), "{transports}: {refused}");
            }
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_socket_is_told_why_in_words() {
    let server = TestServer::start_with(Db::Sqlite, LOCKED).await;
    let clients = Clients::start();
    let good = token(OWNER);
    let bearer = format!("Bearer {good}");
    for (token, code, word) in [
        (Value::Null, "unauthorized", "token"),
        (json!(bearer), "invalid_token", "`Bearer` before it"),
        (json!("eyJhbGciOiJub25lIn0.e30."), "invalid_token", "algorithm"),
        (json!(7), "invalid_token", "must be text"),
    ] {
        for (version, transport) in KINDS {
            let place = if version == "2" { "query" } else { "auth" };
            if version == "2" && !token.is_string() {
                // A query has text alone.
                continue;
            }
            let opts = json!({"transports": [transport], place: {"token": token}});
            let saw = clients.open(version, &server.gateway, opts).next().await;
            let about = format!("{version} {transport} {token}: {saw}");
            if version == "2" {
                assert_eq!((&saw["kind"], &saw["value"]), (&json!("error"), &json!(code)), "{about}");
                continue;
            }
            assert_eq!((&saw["kind"], &saw["message"]), (&json!("connect_error"), &json!(code)), "{about}");
            assert!(saw["data"]["detail"].as_str().is_some_and(|detail| detail.contains(word)), "{about}");
        }
    }
    // By hand.
    for auth in [r#""text""#, "true", r#"["token"]"#] {
        let mut socket = WebSocket::open(&server.gateway, "/socket.io/", None, false).await;
        socket.text().await.expect("open");
        socket.send(&format!("40{auth}")).await;
        let refused = socket.text().await.expect("a refusal");
        assert!(refused.contains("auth must be an object"), "{auth}: {refused}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_subprotocol_that_a_client_offers_is_chosen() {
    let server = TestServer::start(Db::Sqlite).await;
    let clients = Clients::start();
    let id = server.create_at(0.5, 0.5).await;
    for (transports, protocols) in
        [(&["websocket"][..], &["x"][..]), (&["websocket"], &["y", "x"]), (&["polling", "websocket"], &["x"])]
    {
        let opts = json!({"transports": transports, "protocols": protocols});
        let mut client = clients.open("4", &server.gateway, opts);
        client.connected().await;
        if transports.len() > 1 {
            assert_eq!(client.upgraded().await, "websocket");
        }
        assert_eq!(client.join(id).await["version"], 1);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_of_any_letters_opens_both_doors() {
    let server = TestServer::start_with(Db::Sqlite, LOCKED).await;
    let clients = Clients::start();
    let owner = Pass::user(OWNER);
    let id = owner.create(&server).await;
    let path = format!("/location/{id}");
    for password in ["pässwörd 🚲", " spaces ", "100% sure", "%41", "a\tb\nc", "+&=#"] {
        let share = owner.share(&server, id, json!({"password": password})).await;
        let secret = share["token"].as_str().expect("a token").to_owned();
        let pass = Pass::Share(secret.clone(), Some(password.to_owned()));
        pass.must(&server, Method::GET, &path, None).await;
        for kind in [("4", "websocket"), ("2", "polling")] {
            pass.connect_as(&clients, kind, &server.gateway).await;
        }
        // As it is, where a header can have it and it does not look like an escape.
        let raw = [("pässwörd 🚲", true), ("100% sure", true), ("%41", false)];
        for (_, is_right) in raw.into_iter().filter(|(raw, _)| *raw == password) {
            let header = HeaderValue::from_bytes(password.as_bytes()).expect("a header");
            let request = server.http.get(format!("{}{path}?share={secret}", server.api));
            let answer = request.header("X-Share-Password", header).send().await.expect("an answer");
            assert_eq!(answer.status() == StatusCode::OK, is_right, "{password:?}");
        }
    }
    // In Latin-1, as some send what is not ASCII.
    let share = owner.share(&server, id, json!({"password": "ä"})).await;
    let pass = Pass::Share(share["token"].as_str().expect("a token").to_owned(), None);
    let request = pass.on(server.http.get(format!("{}{path}", server.api)));
    let latin = HeaderValue::from_bytes(b"\xe4").expect("a header");
    let answer = request.header("X-Share-Password", latin).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    let problem: Value = answer.json().await.expect("JSON");
    assert_eq!(problem["code"], "invalid_share_password");
    assert!(problem["detail"].as_str().expect("text").contains("percent-encoded"), "{problem}");
    let percent = utf8_percent_encode("ä", NON_ALPHANUMERIC).to_string();
    assert_eq!(percent, "%C3%A4", "as the documentation has it");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_that_opens_the_gateway_learns_what_it_is_and_can_load_the_client() {
    const CLIENT: &str = "/tests/clients/node_modules/socket.io-client-4/dist/socket.io.min.js";
    let server = TestServer::start_with(Db::Sqlite, LOCKED).await;
    let nginx = Nginx::start(&server).await;
    let get = async |url: String| server.http.get(url).send().await.expect("an answer");
    let welcome = get(format!("{}/", server.gateway)).await;
    assert_eq!(welcome.status(), StatusCode::OK);
    assert!(welcome.text().await.expect("text").contains("Socket.IO gateway"));
    let nothing = get(format!("{}/favicon.ico", server.gateway)).await;
    assert_eq!(nothing.status(), StatusCode::NOT_FOUND);
    assert!(nothing.text().await.expect("text").contains("/socket.io"));

    let expected = std::fs::read(format!("{}{CLIENT}", env!("CARGO_MANIFEST_DIR"))).expect("the client");
    for url in [
        format!("{}/socket.io/socket.io.js", server.gateway),
        format!("{}/socket.io/socket.io.min.js", server.gateway),
        format!("{}/chat/socket.io.js", nginx.url),
    ] {
        let answer = get(url.clone()).await;
        assert_eq!(answer.status(), StatusCode::OK, "{url}");
        assert_eq!(answer.headers()[CONTENT_TYPE], "application/javascript; charset=utf-8", "{url}");
        let tag = answer.headers()[ETAG].clone();
        assert!(answer.bytes().await.expect("a file") == expected, "{url}");
        let again = server.http.get(&url).header(IF_NONE_MATCH, tag).send().await.expect("an answer");
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{url}");
    }
    server.stop().await;
}
