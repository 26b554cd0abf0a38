//! Clients that lie about what they have read, or hold what they send, over both transports. Default limits.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    time::{interval, sleep, timeout},
};

use crate::support::{
    Db, TestServer,
    clients::{Clients, PATIENCE},
    exposition::Exposition,
    noise::{self, CUT_OFF},
    polling::Polling,
    process::Process,
    tokens::{KEY, Pass, token},
    truth::Random,
    websocket::{PONG, Position, Seen, WebSocket, frame},
};

const ON: (&str, &str) = ("RATE_LIMITS", "on");
const OWNER: u64 = 10;
const OTHER: u64 = 11;
/// What one kind of attack may add to the process.
const MEMORY: u64 = 64 * 1024 * 1024;

/// A process of its own, so that its memory is nobody else's; with a key and the default limits.
async fn locked() -> TestServer {
    Process::serve(Db::Sqlite, &[KEY, ON]).await.0
}

/// Memory of the server's process that is resident.
async fn resident(server: &TestServer) -> u64 {
    Exposition::scrape(server).await.value("process_resident_memory_bytes") as u64
}

/// A location of 0.8 MB, the largest kind there is.
async fn create_large(pass: &Pass, server: &TestServer) -> u64 {
    let body = json!({"geometry": large(0.0)});
    let made = pass.must(server, Method::POST, "/location", Some(body)).await;
    made["data"]["location"]["id"].as_u64().expect("an id")
}

fn large(shift: f64) -> Value {
    let position = |n: u32| json!([f64::from(n) * 1.1e-4 + 0.123_456_789, shift + 0.987_654_321]);
    json!({"type": "LineString", "coordinates": (0..21_000).map(position).collect::<Vec<_>>()})
}

async fn mv_large(pass: &Pass, server: &TestServer, id: u64, shift: f64) {
    let body = json!({"geometry": large(shift)});
    pass.must(server, Method::PUT, &format!("/location/{id}"), Some(body)).await;
}

fn auth(user: u64) -> String {
    json!({"token": token(user)}).to_string()
}

/// Pongs that nobody asked for are legal (RFC 6455 §5.5.3) and say nothing.
#[tokio::test(flavor = "multi_thread")]
async fn forged_pongs_prove_nothing() {
    let server = locked().await;
    let owner = Pass::user(OWNER);
    let id = create_large(&owner, &server).await;
    owner.grant(&server, id, OTHER, "viewer").await;
    let mut sockets = Vec::new();
    for _ in 0..8 {
        let mut socket = WebSocket::connect_with(&server.gateway, "/socket.io/", true, &auth(OTHER)).await;
        socket.emit("join_room", &json!({"locationId": id})).await;
        sockets.push(socket);
    }
    // Nothing is read from here on.
    let forging = tokio::spawn(async move {
        let pongs = [&[][..], &[0; 8], &[0xff; 8]].map(|payload| frame(PONG, true, payload)).concat();
        let mut ticks = interval(Duration::from_millis(20));
        let mut ended = vec![None; sockets.len()];
        let started = Instant::now();
        while ended.iter().any(Option::is_none) && started.elapsed() < PATIENCE {
            ticks.tick().await;
            for (socket, ended) in sockets.iter_mut().zip(&mut ended) {
                if ended.is_none() && socket.try_raw(&pongs).await.is_err() {
                    *ended = Some(Instant::now());
                }
            }
        }
        (ended, sockets)
    });
    let before = resident(&server).await;
    let mut most = before;
    for turn in 0..40 {
        mv_large(&owner, &server, id, f64::from(turn) * 0.01).await;
        most = most.max(resident(&server).await);
    }
    assert!(most - before < MEMORY, "{} bytes more for 8 sockets", most - before);
    let path = format!("/location/{id}/members/{OTHER}");
    owner.must(&server, Method::DELETE, &path, None).await;
    let removed = Instant::now();
    mv_large(&owner, &server, id, 1.0).await;
    let (ended, sockets) = forging.await.expect("the forger");
    for (ended, mut socket) in ended.into_iter().zip(sockets) {
        // Within a second and what the kernel takes to tell this end.
        let after = ended.expect("cut off") - removed;
        assert!(after < Duration::from_secs(5), "handed out for {after:?}");
        let mut positions = 0;
        while let Ok(Some(_)) = timeout(Duration::from_secs(1), socket.text()).await {
            positions += 1;
        }
        assert!(positions <= 2, "{positions} packets had waited in the process");
    }
    server.stop().await;
}

/// A request on a connection of its own that takes next to nothing of the answer.
async fn ask_narrowly(addr: std::net::SocketAddr, path: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a socket");
    let mut stream = socket.connect(addr).await.expect("a connection");
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("to write");
    stream
}

/// The status of an answer on such a connection.
async fn status(stream: &mut TcpStream) -> u16 {
    let mut head = [0; 12];
    timeout(PATIENCE, stream.read_exact(&mut head)).await.expect("an answer").expect("an answer");
    str::from_utf8(&head[9..]).expect("a status").parse().expect("a status")
}

/// Polls until an answer is large, of which only the head is read.
async fn ask_for_much(addr: std::net::SocketAddr, path: &str) -> TcpStream {
    loop {
        let mut stream = ask_narrowly(addr, path).await;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(timeout(PATIENCE, stream.read_u8()).await.expect("an answer").expect("an answer"));
        }
        let head = String::from_utf8(head).expect("text").to_lowercase();
        assert!(head.starts_with("http/1.1 200 "), "{head}");
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        let length: usize = length.expect("a length").parse().expect("a length");
        if length > 500_000 {
            // The rest of it stays where it is.
            return stream;
        }
        // Something else went before it.
        stream.read_exact(&mut vec![0; length]).await.expect("an answer");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_polls_anew_without_reading_the_last_answer_has_no_session() {
    let server = locked().await;
    let owner = Pass::user(OWNER);
    let id = create_large(&owner, &server).await;
    let mut poller = Polling::connect_with(&server.gateway, "/socket.io/", &auth(OWNER)).await;
    poller.ask("join_room", &json!({"locationId": id})).await;
    poller.chat().await;
    mv_large(&owner, &server, id, 0.5).await;
    let path = format!("/socket.io/?EIO=4&transport=polling&sid={}", poller.session);
    let _unread = ask_for_much(server.addrs.1, &path).await;
    let mut second = ask_narrowly(server.addrs.1, &path).await;
    assert_eq!(status(&mut second).await, 400);
    let (status, _) = poller.poll().await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "the session has ended");
    server.stop().await;
}

/// Whatever they did before: joined again, polled, polled twice at once, or changed the transport.
#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_is_handed_nothing_once_the_right_has_ended() {
    let server = locked().await;
    let owner = Pass::user(OWNER);
    let id = create_large(&owner, &server).await;
    let members = 20..24_u64;
    for member in members.clone() {
        owner.grant(&server, id, member, "viewer").await;
    }
    let mut rejoins = WebSocket::connect_with(&server.gateway, "/socket.io/", true, &auth(20)).await;
    rejoins.emit("join_room", &json!({"locationId": id})).await;
    rejoins.emit("join_room", &json!({"locationId": id})).await;
    let mut unread = Vec::new();
    let mut paths = Vec::new();
    for member in members.clone().skip(1) {
        let mut poller = Polling::connect_with(&server.gateway, "/socket.io/", &auth(member)).await;
        poller.ask("join_room", &json!({"locationId": id})).await;
        poller.chat().await;
        paths.push((format!("/socket.io/?EIO=4&transport=polling&sid={}", poller.session), poller));
    }
    mv_large(&owner, &server, id, 0.5).await;
    for (path, _) in &paths {
        unread.push(ask_for_much(server.addrs.1, path).await);
    }
    let _twice =
        (ask_narrowly(server.addrs.1, &paths[1].0).await, ask_narrowly(server.addrs.1, &paths[1].0).await);
    let mut upgraded =
        WebSocket::open(&server.gateway, "/socket.io/", Some(&paths[2].1.session), false).await;
    upgraded.send("2probe").await;
    upgraded.send("5").await;
    for member in members {
        owner.must(&server, Method::DELETE, &format!("/location/{id}/members/{member}"), None).await;
    }
    // A second is what the contract gives it; none of them reads before three.
    sleep(Duration::from_secs(3)).await;
    for mut stream in unread {
        let mut read = Vec::new();
        // A reset is an end too.
        let _ = timeout(PATIENCE, stream.read_to_end(&mut read)).await.expect("an end");
        assert!(read.len() < 300_000, "{} bytes were handed out", read.len());
    }
    let mut positions = 0;
    while let Ok(Some(_)) = timeout(Duration::from_secs(1), rejoins.text()).await {
        positions += 1;
    }
    assert!(positions <= 1, "{positions} packets were handed out");
    server.stop().await;
}

/// What was in the answer to it may be lost, and nobody could tell.
#[tokio::test(flavor = "multi_thread")]
async fn a_poll_that_breaks_off_ends_its_session() {
    let server = locked().await;
    let owner = Pass::user(OWNER);
    let id = owner.create(&server).await;
    let mut poller = Polling::connect_with(&server.gateway, "/socket.io/", &auth(OWNER)).await;
    poller.ask("join_room", &json!({"locationId": id})).await;
    poller.chat().await;
    // The first heartbeat comes at once; then nothing does.
    let path = format!("/socket.io/?EIO=4&transport=polling&sid={}", poller.session);
    let deadline = Instant::now() + PATIENCE;
    let ended = loop {
        let pending = ask_narrowly(server.addrs.1, &path).await;
        // Most likely it is there when this is answered. If it broke off before, nothing was lost, and the next one is to.
        Exposition::until(&server, "georoom_rooms", 1.0).await;
        drop(pending);
        owner.mv(&server, id).await;
        match timeout(Duration::from_secs(1), poller.poll()).await {
            Ok((StatusCode::BAD_REQUEST, _)) => break true,
            // The break was noticed after this poll had come: then that one was the second.
            _ if Instant::now() < deadline => {}
            _ => break false,
        }
    };
    assert!(ended, "it polls on");
    Exposition::until(&server, r#"georoom_sockets{transport="polling"}"#, 0.0).await;
    server.stop().await;
}

/// One poll of a session on a connection of its own. Returns the versions in it; `None`: the session has ended.
async fn poll_versions(addr: std::net::SocketAddr, path: &str) -> Option<Vec<u64>> {
    let mut stream = TcpStream::connect(addr).await.expect("a connection");
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("to write");
    let mut answer = String::new();
    // A session that ends meanwhile may end its connection.
    let read = timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("an end");
    let body = answer.strip_prefix("HTTP/1.1 200 ").filter(|_| read.is_ok())?.split_once("\r\n\r\n")?.1;
    let positions = body.split('\u{1e}').filter_map(|packet| {
        let chat = packet.strip_prefix(r#"42["chat","#)?.strip_suffix(']')?;
        Some(Position::read(chat).expect("a position").version)
    });
    Some(positions.collect())
}

/// Whenever a poll is given up, its session ends or has every version all the same: before there is an answer, while
/// it is on its way, and when it lies unread in the client's kernel.
#[tokio::test(flavor = "multi_thread")]
async fn a_poll_that_is_given_up_while_updates_come_leaves_no_hole() {
    const SESSIONS: u64 = 60;
    let (server, _log) = Process::serve(Db::Sqlite, &[KEY]).await;
    let owner = Pass::user(OWNER);
    let id = owner.create(&server).await;
    let is_over = AtomicBool::new(false);
    let moving = async {
        while !is_over.load(Ordering::Relaxed) {
            owner.mv(&server, id).await;
        }
    };
    let session = async |number: u64| {
        let mut random = Random(number);
        let mut poller = Polling::connect_with(&server.gateway, "/socket.io/", &auth(OWNER)).await;
        poller.ask("join_room", &json!({"locationId": id})).await;
        let mut chat = poller.chat().await;
        while poller.has_unread() {
            chat = poller.chat().await;
        }
        let mut last = Position::read(&chat).expect("a position").version;
        let path = format!("/socket.io/?EIO=4&transport=polling&sid={}", poller.session);
        for turn in 0..20 {
            let mut given_up = TcpStream::connect(server.addrs.1).await.expect("a connection");
            let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            given_up.write_all(request.as_bytes()).await.expect("to write");
            sleep(Duration::from_micros(random.below(20_000) as u64)).await;
            if number.is_multiple_of(2) {
                // Half of them end the connection by a reset whatever has come, as some clients do.
                given_up.set_zero_linger().expect("a socket");
            }
            drop(given_up);
            let Some(versions) = poll_versions(server.addrs.1, &path).await else { return };
            for version in versions {
                assert_eq!(version, last + 1, "session {number} lives on without a version, turn {turn}");
                last = version;
            }
        }
    };
    let all = async {
        join_all((0..SESSIONS).map(session)).await;
        is_over.store(true, Ordering::Relaxed);
    };
    tokio::join!(moving, all);
    server.stop().await;
}

/// As middleboxes do on the way of phones. Node's server keeps such sessions.
#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_that_comes_to_nothing_leaves_its_session() {
    let server = locked().await;
    let owner = Pass::user(OWNER);
    let id = owner.create(&server).await;
    let mut poller = Polling::connect_with(&server.gateway, "/socket.io/", &auth(OWNER)).await;
    poller.ask("join_room", &json!({"locationId": id})).await;
    poller.chat().await;
    for probes in [false, true] {
        let path = "/socket.io/";
        let mut socket = WebSocket::open(&server.gateway, path, Some(&poller.session), false).await;
        if probes {
            socket.send("2probe").await;
            assert_eq!(socket.text().await.as_deref(), Some("3probe"));
            // The client waits for its last poll to end before it says that it has changed over.
            loop {
                let (status, body) = poller.poll().await;
                assert_eq!(status, StatusCode::OK);
                if body == "6" {
                    break;
                }
            }
        }
        // While it is open and says nothing more.
        owner.mv(&server, id).await;
        let chat = loop {
            let packet = poller.next().await;
            if packet != "6" {
                break packet;
            }
        };
        assert!(chat.starts_with(r#"42["chat","#), "{chat}");
        drop(socket);
        owner.mv(&server, id).await;
        poller.chat().await;
    }
    // One that works, after all.
    let deadline = Instant::now() + PATIENCE;
    let mut socket = loop {
        // Until the server has noticed that the last try is over, there is no other.
        let path = format!("/socket.io/?EIO=4&transport=websocket&sid={}", poller.session);
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        let mut probe = TcpStream::connect(server.addrs.1).await.expect("a connection");
        probe.write_all(request.as_bytes()).await.expect("to write");
        if status(&mut probe).await == 101 {
            drop(probe);
            // That one is a try that ends at once.
            sleep(Duration::from_millis(50)).await;
            break WebSocket::open(&server.gateway, "/socket.io/", Some(&poller.session), false).await;
        }
        assert!(Instant::now() < deadline, "no other try");
    };
    socket.send("2probe").await;
    assert_eq!(socket.text().await.as_deref(), Some("3probe"));
    socket.send("5").await;
    owner.mv(&server, id).await;
    match socket.next().await {
        Seen::Position(position) => assert_eq!(position.room, id),
        other => panic!("{other:?}"),
    }
    server.stop().await;
}

/// What stands between a client and the server, and what it does once a WebSocket is open.
#[derive(Clone, Copy, Debug)]
enum Middlebox {
    Closes,
    /// Passes no frame on, in either direction, and reads none.
    Holds,
    /// Reads what the client sends, and passes none of it on.
    Swallows,
    /// Passes on what the client sends, and nothing of what it is answered.
    SwallowsAnswers,
}

/// Starts one; returns its URL.
async fn middlebox(to: std::net::SocketAddr, kind: Middlebox) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                    if !matches!(client.read_buf(&mut head).await, Ok(1..)) {
                        return;
                    }
                }
                let is_upgrade = String::from_utf8_lossy(&head).to_lowercase().contains("upgrade: websocket");
                let Ok(mut server) = TcpStream::connect(to).await else { return };
                let _ = server.write_all(&head).await;
                if !is_upgrade {
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    return;
                }
                let mut answer = vec![0; 4096];
                let length = server.read(&mut answer).await.unwrap_or(0);
                let _ = client.write_all(&answer[..length]).await;
                match kind {
                    Middlebox::Closes => {}
                    Middlebox::Holds => std::future::pending().await,
                    Middlebox::Swallows => _ = client.read_to_end(&mut Vec::new()).await,
                    Middlebox::SwallowsAnswers => _ = tokio::io::copy(&mut client, &mut server).await,
                }
            });
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_clients_stay_connected_where_websockets_break() {
    let server = locked().await;
    let owner = Pass::user(OWNER);
    let clients = Clients::start();
    let kinds = [Middlebox::Closes, Middlebox::Holds, Middlebox::Swallows, Middlebox::SwallowsAnswers];
    let tried = kinds.map(|kind| {
        let (server, owner, clients) = (&server, &owner, &clients);
        async move {
            let id = owner.create(server).await;
            let url = middlebox(server.addrs.1, kind).await;
            // With the transports it comes with.
            let mut client = clients.open("4", &url, json!({"auth": {"token": token(OWNER)}}));
            client.connected().await;
            client.join(id).await;
            let started = Instant::now();
            let mut version = 1;
            // Longer than a change of transport may take.
            while started.elapsed() < Duration::from_secs(12) {
                version += 1;
                owner.mv(server, id).await;
                client.follow(id, version - 1, version).await;
                sleep(Duration::from_millis(500)).await;
            }
            client.kill();
        }
    });
    join_all(tried).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_holds_much_before_it_is_known_who_they_are() {
    let server = locked().await;
    let before = resident(&server).await;
    let addr = server.addrs.1;
    // Bodies for sessions that do not exist: answered before they have come.
    let mut refused = Vec::new();
    for _ in 0..150 {
        let mut stream = TcpStream::connect(addr).await.expect("a connection");
        let head = "POST /socket.io/?EIO=4&transport=polling&sid=AAAAAAAAAAAAAAHs HTTP/1.1\r\n\
                    Host: localhost\r\nContent-Length: 1048575\r\n\r\n";
        stream.write_all(head.as_bytes()).await.expect("to write");
        let _ = stream.write_all(&vec![b'x'; 200_000]).await;
        refused.push(stream);
    }
    for stream in &mut refused {
        assert_eq!(status(stream).await, 400);
    }
    // Handshakes of one address that go no further; another's are served.
    let open = |from: &'static str, count: usize| {
        let http = server.http.clone();
        let url = format!("{}/socket.io/?EIO=4&transport=polling", server.gateway);
        async move {
            let mut statuses = Vec::new();
            for _ in 0..count {
                let request = http.get(&url).header("X-Forwarded-For", from);
                let answer = request.send().await.expect("an answer");
                if answer.status() == StatusCode::TOO_MANY_REQUESTS {
                    assert!(answer.headers().contains_key("retry-after"));
                }
                statuses.push(answer.status());
            }
            statuses
        }
    };
    let opened = join_all((0..8).map(|_| open("198.51.100.7", 500))).await.concat();
    let count = |status| opened.iter().filter(|is| **is == status).count();
    assert!(count(StatusCode::TOO_MANY_REQUESTS) > 1_000, "{} were let in", count(StatusCode::OK));
    assert!(count(StatusCode::OK) >= 1_000, "{} were let in", count(StatusCode::OK));
    assert_eq!(open("198.51.100.8", 1).await, [StatusCode::OK]);
    // Such a session sends its token, and nothing large.
    let url = format!("{}/socket.io/?EIO=4&transport=polling", server.gateway);
    let opened =
        server.http.get(&url).header("X-Forwarded-For", "198.51.100.9").send().await.expect("an answer");
    let opened = opened.text().await.expect("a packet");
    let opened: serde_json::Value = serde_json::from_str(&opened[1..]).expect("a session");
    let url = format!("{url}&sid={}", opened["sid"].as_str().expect("an id"));
    let large = server.http.post(&url).body("4".repeat(200_000)).send().await.expect("an answer");
    assert_eq!(large.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let more = resident(&server).await.saturating_sub(before);
    assert!(more < MEMORY, "{more} bytes more");
    let mut honest = WebSocket::connect_with(&server.gateway, "/socket.io/", false, &auth(OWNER)).await;
    let id = Pass::user(OWNER).create(&server).await;
    honest.join(&[id]).await;
    server.stop().await;
}

/// A thousand may hear of it, and none of them reads.
#[tokio::test(flavor = "multi_thread")]
async fn idle_sockets_and_one_large_feature_cost_little() {
    noise::expect(&[CUT_OFF]);
    let server = locked().await;
    let owner = Pass::user(OWNER);
    let id = create_large(&owner, &server).await;
    let mut sockets = Vec::new();
    let mut pollers = Vec::new();
    for _ in 0..100 {
        let mut socket = WebSocket::connect_with(&server.gateway, "/socket.io/", true, &auth(OWNER)).await;
        socket.emit("join_room", &json!({"locationId": id})).await;
        sockets.push(socket);
        let poller = Polling::connect_with(&server.gateway, "/socket.io/", &auth(OWNER)).await;
        poller.send(&format!(r#"420["join_room",{{"locationId":{id}}}]"#)).await;
        pollers.push(poller);
    }
    let before = resident(&server).await;
    let mut most = before;
    for turn in 0..10 {
        mv_large(&owner, &server, id, f64::from(turn) * 0.02).await;
        most = most.max(resident(&server).await);
    }
    assert!(most - before < MEMORY, "{} bytes more", most - before);
    server.stop().await;
}

/// Nobody has said yet who they are, and nothing else bounds them.
#[tokio::test(flavor = "multi_thread")]
async fn half_sent_heads_of_one_address_take_little_memory() {
    const SHARE: f64 = 4.0 * 1024.0 * 1024.0;
    let server = locked().await;
    let head = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Pad: {}", "a".repeat(64 * 1024));
    let mut ends = FuturesUnordered::new();
    for n in 0..200 {
        let addr = if n % 2 == 0 { server.addrs.0 } else { server.addrs.1 };
        let mut stream = TcpStream::connect(addr).await.expect("a connection");
        // The server may have closed it.
        let _ = stream.write_all(head.as_bytes()).await;
        ends.push(async move { stream.read(&mut [0; 1]).await });
    }
    for _ in 0..100 {
        let end = timeout(PATIENCE, ends.next()).await.expect("it is closed").expect("one of them");
        assert!(end.is_err() || matches!(end, Ok(0)), "{end:?}");
    }
    let held = Exposition::scrape(&server).await.value("georoom_heads_bytes");
    assert!(held > SHARE / 2.0 && held <= SHARE, "{held}");
    drop(ends);
    Exposition::until(&server, "georoom_heads_bytes", 0.0).await;
    server.stop().await;
}
