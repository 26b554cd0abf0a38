//! Too much of something: who sends it is told so, nobody else notices, and an honest fleet never meets a limit.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use georoom::domain::error::Code;
use reqwest::{Method, RequestBuilder, Response, StatusCode, header::RETRY_AFTER};
use sea_orm::ConnectionTrait;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{interval, sleep, timeout},
};

use crate::{
    on_both_databases, on_one_database,
    stalls::not_ended,
    support::{
        Db, TestServer,
        clients::{Client, Clients, KINDS},
        exposition::Exposition,
        point,
        polling::{Polling, open_session},
        problem::Problem,
        tokens::{KEY, LOCKED, Pass, code, in_ms, refusal, token},
        websocket::{Seen, WebSocket, frame},
    },
};

on_both_databases!(who_tells_many_people_pays_for_it);

on_one_database!(
    too_many_requests_of_a_user_are_refused_and_change_nothing,
    passwords_of_share_links_cannot_be_tried_for_long,
);

const ON: (&str, &str) = ("RATE_LIMITS", "on");
const OWNER: u64 = 10;
const OTHER: u64 = 11;
/// Longer than anything here takes on a busy machine; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// With a key, limits and settings of its own.
async fn locked(db: Db, settings: &[(&str, &str)]) -> TestServer {
    TestServer::start_with(db, &[LOCKED, &[ON], settings].concat()).await
}

/// How often a limit was met, as a scrape reads it.
async fn counted(server: &TestServer, limit: &str) -> usize {
    let answer = server.http.get(format!("{}/metrics", server.api)).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    let text = answer.text().await.expect("text");
    let name = format!("georoom_limited_total{{limit=\"{limit}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().expect("a number")
}

/// The refusal of an answer; after how many seconds to try again.
async fn limited(answer: Response) -> u64 {
    let after = answer.headers().get(RETRY_AFTER).expect("Retry-After").to_str().expect("ASCII").to_owned();
    Problem::check(Problem::of(answer).await, StatusCode::TOO_MANY_REQUESTS, Code::RateLimited, "too many");
    let after = after.parse().expect("seconds");
    assert!((1..=60).contains(&after), "{after}");
    after
}

/// Sends all at once; which were let through.
async fn flood(requests: impl IntoIterator<Item = RequestBuilder>) -> Vec<Response> {
    let answers = join_all(requests.into_iter().map(RequestBuilder::send)).await;
    answers.into_iter().map(|answer| answer.expect("an answer")).collect()
}

async fn too_many_requests_of_a_user_are_refused_and_change_nothing(db: Db) {
    let server = locked(db, &[("LIMIT_USER_REQUESTS", "5")]).await;
    let (owner, other) = (Pass::user(OWNER), Pass::user(OTHER));
    let id = owner.create(&server).await;
    let mv = |n: u32| {
        let body = json!({"id": id, "geometry": point(f64::from(n) / 100.0, 0.5)});
        owner.on(server.http.put(format!("{}/location", server.api))).json(&body)
    };
    let started = Instant::now();
    let (mut moved, mut refused) = (0, 0);
    for answer in flood((0..100).map(mv)).await {
        match answer.status() {
            StatusCode::CREATED => moved += 1,
            _ => {
                limited(answer).await;
                refused += 1;
            }
        }
    }
    // Five seconds' worth at once, less the POST, and what has come back meanwhile.
    let most = 25 + 5 * (1 + started.elapsed().as_secs());
    assert!((24..=most).contains(&moved), "{moved} of at most {most}");
    assert_eq!(counted(&server, "user_requests").await, refused);
    let location = other.get(&server, "/location").await;
    assert_eq!(location.0, StatusCode::OK, "another user at the same address");

    // Who waits as told is let in again, and finds what was let through.
    let body = loop {
        let answer = owner.send(&server, Method::GET, &format!("/location/{id}"), None).await;
        if answer.status() == StatusCode::OK {
            break answer.json::<Value>().await.expect("JSON");
        }
        assert!(started.elapsed() < PATIENCE);
        sleep(Duration::from_secs(limited(answer).await)).await;
    };
    assert_eq!(body["properties"]["version"], moved + 1);
    server.stop().await;
}

async fn who_tells_many_people_pays_for_it(db: Db) {
    let server = locked(db, &[("LIMIT_USER_REQUESTS", "20")]).await;
    let raw = server.database.open().await;
    let followed = async |owner: u64, members: u64| {
        let id = Pass::user(owner).create(&server).await;
        let members: Vec<_> = (1_000..1_000 + members).map(|user| format!("({id},{user},1,5)")).collect();
        let sql =
            format!("INSERT INTO member (location_id, user_id, role, added_at) VALUES {}", members.join(","));
        raw.execute_unprepared(&sql).await.expect("members");
        id
    };
    let patch = |owner: u64, id: u64, properties: Value| {
        let body = json!({"properties": properties});
        Pass::user(owner).on(server.http.put(format!("{}/location/{id}", server.api))).json(&body)
    };
    let rename = |owner, id, n| patch(owner, id, json!({"name": format!("bike {n}")}));
    // A hundred requests at once, and each tells as many as eighty cost; however they come.
    let many = followed(OWNER, 2_000).await;
    let (mut told, mut refused) = (0, 0);
    for answer in flood((0..40).map(|n| rename(OWNER, many, n))).await {
        match answer.status() {
            StatusCode::CREATED => told += 1,
            _ => {
                limited(answer).await;
                refused += 1;
            }
        }
    }
    assert!((1..=4).contains(&told), "{told} times");
    assert_eq!(counted(&server, "user_requests").await, refused);
    // Whatever it is that they ask for next, and until it is paid.
    let owner = Pass::user(OWNER);
    let after = limited(owner.send(&server, Method::GET, &format!("/location/{many}"), None).await).await;
    let moved = Pass::user(OTHER).create(&server).await;
    Pass::user(OTHER).mv(&server, moved).await;
    sleep(Duration::from_secs(after)).await;
    let answer = owner.send(&server, Method::GET, &format!("/location/{many}"), None).await;
    assert_eq!(answer.status(), StatusCode::OK, "paid after {after} s");

    // What lists show.
    let seen = followed(OTHER + 3, 2_000).await;
    let seen = flood((0..5).map(|n| patch(OTHER + 3, seen, json!({"battery": n})))).await;
    assert!(seen.iter().any(|answer| answer.status() == StatusCode::CREATED));
    limited(Pass::user(OTHER + 3).send(&server, Method::GET, "/location", None).await).await;
    // Share links.
    let shared = followed(OTHER + 1, 2_000).await;
    let body = json!({"expiresAt": in_ms(60_000)});
    let share = |_| {
        let request = server.http.post(format!("{}/location/{shared}/shares", server.api));
        Pass::user(OTHER + 1).on(request).json(&body)
    };
    let shared = flood((0..20).map(share)).await;
    let made = shared.iter().filter(|answer| answer.status() == StatusCode::CREATED).count();
    assert!((1..=4).contains(&made), "{made} times");

    // The end of a location.
    let mut gone = Vec::new();
    for _ in 0..3 {
        gone.push(followed(OTHER + 4, 2_000).await);
    }
    let delete = |id| Pass::user(OTHER + 4).on(server.http.delete(format!("{}/location/{id}", server.api)));
    let deleted = flood(gone.into_iter().map(delete)).await;
    assert!(deleted.iter().any(|answer| answer.status() == StatusCode::NO_CONTENT));
    limited(Pass::user(OTHER + 4).send(&server, Method::GET, "/location", None).await).await;

    // Who tells few pays for the request and for nothing else.
    let few = followed(OTHER + 2, 24).await;
    for answer in flood((0..90).map(|n| rename(OTHER + 2, few, n))).await {
        assert_eq!(answer.status(), StatusCode::CREATED);
    }
    raw.close().await.expect("close");
    server.stop().await;
}

/// At both doors, and without taking it out on those at the same address who are known.
#[tokio::test(flavor = "multi_thread")]
async fn who_shows_nothing_valid_is_soon_refused_without_being_told_why() {
    let server = locked(Db::Sqlite, &[("LIMIT_ADDRESS_REFUSALS", "1")]).await;
    let owner = Pass::user(OWNER);
    let id = owner.create(&server).await;
    let get = |pass: &Pass, from: &str| {
        let request = pass.on(server.http.get(format!("{}/location/{id}", server.api)));
        request.header("X-Forwarded-For", from)
    };
    let bad = Pass::Token(format!("{}x", token(OWNER)));
    for (stranger, neighbour, other) in [
        ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
        // Whoever has one address of an IPv6 network of 64 bits has all of them.
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:db8:1:3::1"),
    ] {
        let answers = flood((0..40).map(|n| get(if n % 2 == 0 { &bad } else { &Pass::Nothing }, stranger)));
        let mut refused = 0;
        for answer in answers.await {
            if answer.status() == StatusCode::TOO_MANY_REQUESTS {
                limited(answer).await;
                refused += 1;
            } else {
                assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
            }
        }
        assert!((20..=35).contains(&refused), "{refused} of 40");
        limited(get(&Pass::Nothing, neighbour).send().await.expect("an answer")).await;
        let answer = get(&Pass::Nothing, other).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "another address");
        let answer = get(&owner, neighbour).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK, "a good token from the same address");
    }

    let clients = Clients::start();
    let mut said = Vec::new();
    for n in 0..12 {
        let mut client = bad.open(&clients, KINDS[n % KINDS.len()], &server.gateway);
        said.push(refusal(&mut client).await);
        client.kill();
    }
    let invalid = said.iter().filter(|code| *code == "invalid_token").count();
    let limited = said.iter().filter(|code| *code == "rate_limited").count();
    assert!(invalid >= 5 && limited >= 1 && invalid + limited == 12, "{said:?}");
    owner.connect(&clients, &server.gateway).await.join(id).await;
    assert!(counted(&server, "address_refusals").await > limited);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_open_mode_and_by_share_links_an_address_has_its_limit() {
    let settings = [ON, ("LIMIT_ADDRESS_REQUESTS", "2")];
    let open = TestServer::start_with(Db::Sqlite, &settings).await;
    let id = open.create_at(0.5, 0.5).await;
    let locked = locked(Db::Sqlite, &settings).await;
    let owner = Pass::user(OWNER);
    let shared = owner.create(&locked).await;
    let guest = owner.guest(&locked, shared).await;
    for (server, pass, id) in [(&open, Pass::Nothing, id), (&locked, guest, shared)] {
        let get = |path: &str, from: &str| {
            let request = pass.on(server.http.get(format!("{}{path}", server.api)));
            request.header("X-Forwarded-For", from.to_owned())
        };
        let path = format!("/location/{id}");
        let answers = flood((0..30).map(|_| get(&path, "192.0.2.7"))).await;
        let refused =
            answers.iter().filter(|answer| answer.status() == StatusCode::TOO_MANY_REQUESTS).count();
        let seen = answers.iter().filter(|answer| answer.status() == StatusCode::OK).count();
        assert!(refused >= 10 && seen >= 10 && refused + seen == 30, "{seen} and {refused}");
        assert_eq!(counted(server, "address_requests").await, refused);
        let status = async |path: &str, from: &str| get(path, from).send().await.expect("an answer").status();
        assert_eq!(status(&path, "192.0.2.8").await, StatusCode::OK);
        // Load balancers are not counted.
        assert_eq!(status("/healthz", "192.0.2.7").await, StatusCode::OK);
        assert_eq!(status("/readyz", "192.0.2.7").await, StatusCode::OK);
    }
    open.stop().await;
    locked.stop().await;
}

async fn passwords_of_share_links_cannot_be_tried_for_long(db: Db) {
    const PASSWORD: &str = "correct-horse";
    let server = locked(db, &[("LIMIT_SHARE_PASSWORDS", "4")]).await;
    let owner = Pass::user(OWNER);
    let id = owner.create(&server).await;
    let shares = [
        owner.share(&server, id, json!({"password": PASSWORD})).await,
        owner.share(&server, id, json!({"password": PASSWORD})).await,
        owner.share(&server, id, json!({"password": PASSWORD})).await,
    ];
    let shares: Vec<&str> = shares.iter().map(|share| share["token"].as_str().expect("a token")).collect();
    let get = |share: &str, password: &str| {
        let pass = Pass::Share(share.to_owned(), Some(password.to_owned()));
        pass.on(server.http.get(format!("{}/location/{id}", server.api)))
    };
    let statuses = async |requests: Vec<RequestBuilder>| -> Vec<u16> {
        flood(requests).await.iter().map(|answer| answer.status().as_u16()).collect()
    };

    // All viewers come back at once, and nobody has shown the password before.
    assert_eq!(statuses((0..30).map(|_| get(shares[0], PASSWORD)).collect()).await, [200; 30]);

    let said = statuses((0..30).map(|n| get(shares[1], &format!("{PASSWORD}{n}"))).collect()).await;
    let (wrong, refused) =
        (said.iter().filter(|status| **status == 401).count(), said.iter().filter(|s| **s == 429).count());
    assert!((4..=6).contains(&wrong) && wrong + refused == 30, "{said:?}");
    assert_eq!(counted(&server, "share_passwords").await, refused);
    let answer = get(shares[1], PASSWORD).send().await.expect("an answer");
    assert!(limited(answer).await > 1, "one comes back every 15 seconds");
    let clients = Clients::start();
    let guest = Pass::Share(shares[1].to_owned(), Some("wrong".to_owned()));
    assert_eq!(refusal(&mut guest.open(&clients, KINDS[0], &server.gateway)).await, "rate_limited");

    // Nobody else pays for it: not who comes from elsewhere, nor the guests of another link, nor who has shown
    // the right one before.
    assert_eq!(statuses(vec![get(shares[1], PASSWORD).header("X-Forwarded-For", "192.0.2.8")]).await, [200]);
    assert_eq!(statuses(vec![get(shares[2], PASSWORD)]).await, [200]);
    statuses((0..30).map(|n| get(shares[0], &format!("{PASSWORD}{n}"))).collect()).await;
    assert_eq!(statuses(vec![get(shares[0], PASSWORD)]).await, [200]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_events_of_a_socket_are_refused_one_by_one() {
    let more = [("LIMIT_USER_CHATS", "1000"), ("LIMIT_ROOM_CHATS", "1000")];
    let settings = [ON, ("LIMIT_SOCKET_EVENTS", "2"), more[0], more[1]];
    let server = TestServer::start_with(Db::Sqlite, &settings).await;
    let clients = Clients::start();
    let id = server.create_at(0.5, 0.5).await;
    for kind in KINDS {
        let before = counted(&server, "socket_events").await;
        let mut client = clients.connect_as(kind.0, kind.1, &server.gateway).await;
        client.join(id).await;
        let acks: Vec<u64> =
            (0..80).map(|n| client.emit_for_ack("chat", json!({"message": n, "roomName": id}))).collect();
        let (answers, chats) = client.acks_seeing(&acks).await;
        let (refused, relayed): (Vec<_>, Vec<_>) =
            answers.iter().enumerate().partition(|(_, answer)| answer["status"] == "error");
        assert!(refused.iter().all(|(_, answer)| code(answer) == "rate_limited"), "{refused:?}");
        assert!((30..=41).contains(&refused.len()), "{} of 80", refused.len());
        assert_eq!(counted(&server, "socket_events").await, before + refused.len());
        // What was let through has come, and nothing else.
        assert!(relayed.iter().all(|(n, answer)| answer["message"] == *n), "{relayed:?}");
        assert_eq!(chats, relayed.into_iter().map(|(_, chat)| chat.clone()).collect::<Vec<_>>(), "{kind:?}");
        // Another socket has a budget of its own, and this one goes on getting positions.
        let mut other = clients.connect(&server.gateway).await;
        other.join(id).await;
        let version = server.move_to(id, 1.5, 1.5).await["properties"]["version"].clone();
        assert_eq!(client.event("chat").await["version"], version);
        other.kill();
        client.kill();
    }
    server.stop().await;
}

/// Who sends without end and reads nothing holds up nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_events_is_cut_off() {
    let server = TestServer::start_with(Db::Sqlite, &[ON]).await;
    let clients = Clients::start();
    let id = server.create_at(0.5, 0.5).await;
    let mut resident = clients.connect(&server.gateway).await;
    resident.join(id).await;
    let mut flooders = Vec::new();
    for _ in 0..4 {
        let gateway = server.gateway.clone();
        flooders.push(tokio::spawn(async move {
            let mut flooder = WebSocket::connect(&gateway).await;
            let event = frame(1, true, format!(r#"427["join_room",{{"locationId":{id}}}]"#).as_bytes());
            let started = Instant::now();
            while flooder.try_raw(&event.repeat(100)).await.is_ok() {
                assert!(started.elapsed() < PATIENCE, "cut off");
            }
        }));
    }
    // And one whose every request is as many packets as fit.
    let polling = Polling::connect(&server.gateway).await;
    let bomb = vec![format!(r#"42["join_room",{{"locationId":{id}}}]"#); 20_000].join("\u{1e}");
    let bomber = async {
        for _ in 0..5 {
            let url =
                format!("{}/socket.io/?EIO=4&transport=polling&sid={}", server.gateway, polling.session);
            let answer = server.http.post(url).body(bomb.clone()).send().await;
            if answer.is_ok_and(|answer| answer.status().is_client_error()) {
                return;
            }
        }
        panic!("never cut off");
    };
    let mut version = 1;
    while flooders.iter().any(|flooder| !flooder.is_finished()) {
        version += 1;
        let moved = timeout(Duration::from_secs(2), server.move_to(id, 1.5, 1.5)).await.expect("in time");
        assert_eq!(moved["properties"]["version"], version);
        resident.follow(id, version - 1, version).await;
    }
    for flooder in flooders {
        flooder.await.expect("cut off");
    }
    bomber.await;
    server.move_to(id, 1.5, 1.5).await;
    resident.follow(id, version, version + 1).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_and_the_server_have_so_many_sockets() {
    let settings = [("LIMIT_USER_SOCKETS", "3"), ("LIMIT_SOCKETS", "5")];
    let server = locked(Db::Sqlite, &settings).await;
    let clients = Clients::start();
    let (owner, other) = (Pass::user(OWNER), Pass::user(OTHER));
    let id = owner.create(&server).await;
    let mut mine = Vec::new();
    for kind in &KINDS[..3] {
        mine.push(owner.connect_as(&clients, *kind, &server.gateway).await);
    }
    for kind in KINDS {
        assert_eq!(refusal(&mut owner.open(&clients, kind, &server.gateway)).await, "rate_limited");
    }
    assert_eq!(counted(&server, "user_sockets").await, KINDS.len());
    let mut others = vec![other.connect(&clients, &server.gateway).await];
    others.push(other.connect(&clients, &server.gateway).await);
    assert_eq!(refusal(&mut other.open(&clients, KINDS[0], &server.gateway)).await, "rate_limited");
    let guest = owner.guest(&server, id).await;
    assert_eq!(refusal(&mut guest.open(&clients, KINDS[0], &server.gateway)).await, "rate_limited");
    assert_eq!(counted(&server, "sockets").await, 2);
    // They are where they were, and a place that is given up can be taken.
    mine[0].join(id).await;
    others.pop().expect("a socket").disconnect();
    mine.pop().expect("a socket").kill();
    for pass in [&owner, &guest] {
        let started = Instant::now();
        loop {
            let mut client = pass.open(&clients, KINDS[0], &server.gateway);
            let saw = client.next().await;
            if saw["kind"] == "connect" {
                break;
            }
            assert!(started.elapsed() < PATIENCE, "{saw}");
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_may_be_in_so_many_rooms() {
    let server = TestServer::start_with(Db::Sqlite, &[ON, ("LIMIT_SOCKET_ROOMS", "2")]).await;
    let clients = Clients::start();
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(server.create_at(0.5, 0.5).await);
    }
    let mut client = clients.connect(&server.gateway).await;
    client.join(ids[0]).await;
    client.join(ids[1]).await;
    let refused = client.ask("join_room", json!({"locationId": ids[2]})).await;
    assert_eq!(code(&refused), "rate_limited", "{refused}");
    assert!(refused["message"].as_str().is_some_and(|message| message.contains("at most 2 rooms")));
    assert_eq!(counted(&server, "socket_rooms").await, 1);
    client.join(ids[1]).await;
    client.leave(ids[0]).await;
    client.join(ids[2]).await;
    server.stop().await;
}

/// What comes over a connection until its end.
async fn rest(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is an end too.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("an end");
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn sent(addr: std::net::SocketAddr, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.expect("a connection");
    stream.write_all(text.as_bytes()).await.expect("to write");
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn what_never_comes_to_its_end_is_not_waited_for() {
    let settings = [("HEADER_TIMEOUT", "1s"), ("BODY_TIMEOUT", "300ms"), ("HANDSHAKE_TIMEOUT", "300ms"), ON];
    let server = TestServer::start_with(Db::Sqlite, &settings).await;
    let id = server.create_at(0.5, 0.5).await;
    let (api, gateway) = server.addrs;

    let head = "Host: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n";
    for (method, path) in [("PUT", "/location".to_owned()), ("POST", "/location".to_owned())] {
        let said = rest(sent(api, &format!("{method} {path} HTTP/1.1\r\n{head}{{\"id\":{id},")).await).await;
        assert!(said.starts_with("HTTP/1.1 408 ") && said.contains("request_timeout"), "{method}: {said}");
    }
    assert_eq!(server.get(&format!("/location/{id}")).await.1["properties"]["version"], 1);
    assert_eq!(server.get("/location").await.1["total"], 1);

    for addr in [api, gateway] {
        assert_eq!(rest(sent(addr, "GET /healthz HTTP/1.1\r\nHost: loc").await).await, "");
    }

    let mut polling = Polling::connect(&server.gateway).await;
    let path = format!("/socket.io/?EIO=4&transport=polling&sid={}", polling.session);
    let post = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n42[");
    let said = rest(sent(gateway, &post).await).await;
    assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
    let ack = polling.ask("join_room", &json!({"locationId": id})).await;
    assert!(ack.contains(&id.to_string()), "still there: {ack}");

    // A connection that does not become a socket.
    let mut mute = WebSocket::open(&server.gateway, "/socket.io/", None, false).await;
    assert!(mute.text().await.expect("open").starts_with('0'));
    assert_eq!(mute.text().await.as_deref(), Some("1"), "closed");
    assert_eq!(mute.text().await, None, "the end");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_not_read() {
    const MIB: usize = 1024 * 1024;
    let settings = [("MAX_MESSAGE_BYTES", "40000"), ON];
    let server = TestServer::start_with(Db::Sqlite, &settings).await;
    let id = server.create_at(0.5, 0.5).await;
    let chat = |length: usize| {
        let message = "x".repeat(length);
        format!(r#"42["chat",{{"message":"{message}","roomName":{id}}}]"#)
    };
    let mut fits = WebSocket::connect(&server.gateway).await;
    fits.join(&[id]).await;
    fits.send(&chat(16_000)).await;
    assert!(matches!(fits.next().await, Seen::Relayed(_)));
    // In one frame, in two, and in a frame that says it is 64 MiB long.
    let large = chat(40_000);
    let (first, second) = large.as_bytes().split_at(20_000);
    for bytes in [
        frame(1, true, large.as_bytes()),
        [frame(1, false, first), frame(0, true, second)].concat(),
        [&[0x81, 0xff][..], &(64 * MIB as u64).to_be_bytes(), &[0; 4]].concat(),
    ] {
        let mut socket = WebSocket::connect(&server.gateway).await;
        // It may end before all of it is sent.
        let _ = socket.try_raw(&bytes).await;
        while socket.try_raw(&[0; 4096]).await.is_ok() {}
        while !matches!(socket.next().await, Seen::End) {}
    }
    let polling = Polling::connect(&server.gateway).await;
    let url = format!("{}/socket.io/?EIO=4&transport=polling&sid={}", server.gateway, polling.session);
    let answer = server.http.post(url).body(vec![b'4'; 64 * MIB]).send().await;
    // Or the connection has ended before the answer could be read.
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status() == StatusCode::PAYLOAD_TOO_LARGE));
    let polling = Polling::connect(&server.gateway).await;
    let url = format!("{}/socket.io/?EIO=4&transport=polling&sid={}", server.gateway, polling.session);
    let answer = server.http.post(url).body(format!("4{}", &large[1..])).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE, "one message of it");
    assert!(counted(&server, "bytes").await >= 1);
    fits.send(&chat(16_000)).await;
    assert!(matches!(fits.next().await, Seen::Relayed(_)));
    server.stop().await;
}

/// A connection to the gateway by hand, up to its answer.
async fn shaken(server: &TestServer, query: &str) -> TcpStream {
    let request = format!(
        "GET /socket.io/?transport=websocket&{query} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let mut stream = sent(server.addrs.1, &request).await;
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.expect("an answer");
    assert_eq!(&head, b"HTTP/1.1 101");
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_breaks_off_leaves_no_socket() {
    const SOCKETS: usize = 10;
    let server = TestServer::start_with(Db::Sqlite, &[ON, ("LIMIT_SOCKETS", "10")]).await;
    for n in 0..200 {
        let stream = shaken(&server, if n % 2 == 0 { "EIO=3" } else { "EIO=4" }).await;
        stream.set_zero_linger().expect("a socket");
    }
    let clients = Clients::start();
    let mut sockets = Vec::new();
    let started = Instant::now();
    while sockets.len() < SOCKETS {
        let mut client = clients.open("4", &server.gateway, json!({"transports": ["websocket"]}));
        if client.next().await["kind"] == "connect" {
            sockets.push(client);
        }
        assert!(started.elapsed() < PATIENCE, "{} of {SOCKETS}", sockets.len());
    }
    server.stop().await;
}

/// Who is refused, leaves, or wants another namespace holds no connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_socket_is_ended() {
    let server = locked(Db::Sqlite, &[("HANDSHAKE_TIMEOUT", "1s")]).await;
    for (query, refused) in [("EIO=3&token=bad", r#"44"invalid_token""#), ("EIO=3", r#"44"unauthorized""#)] {
        let said = rest(shaken(&server, query).await).await;
        assert!(said.contains(refused), "{said}");
    }
    let auth = json!({"token": token(OWNER)}).to_string();
    for packet in ["41", "40/admin,", "40/x,{}"] {
        let mut socket = WebSocket::connect_with(&server.gateway, "/socket.io/", false, &auth).await;
        for _ in 0..3 {
            // Once too often.
            let _ = socket.try_raw(&frame(1, true, packet.as_bytes())).await;
        }
        while socket.text().await.is_some() {}
        let mut hidden = WebSocket::connect_with(&server.gateway, "/socket.io/", false, &auth).await;
        for _ in 0..3 {
            let pieces = [frame(1, false, &packet.as_bytes()[..1]), frame(0, true, &packet.as_bytes()[1..])];
            let _ = hidden.try_raw(&pieces.concat()).await;
        }
        while hidden.text().await.is_some() {}
        let polling = Polling::connect_with(&server.gateway, "/socket.io/", &auth).await;
        let url = format!("{}/socket.io/?EIO=4&transport=polling&sid={}", server.gateway, polling.session);
        let body = [packet; 3].join("\u{1e}");
        let first = server.http.post(&url).body(body).send().await.expect("an answer").status();
        assert_eq!(first.is_success(), packet == "41");
        let started = Instant::now();
        // A poll may be waiting for something to say.
        let poll = || timeout(Duration::from_millis(300), server.http.get(&url).send());
        while !poll().await.is_ok_and(|said| said.is_ok_and(|said| said.status() == StatusCode::BAD_REQUEST))
        {
            assert!(started.elapsed() < PATIENCE);
        }
    }
    // What is not framed as it should be does not reach the library; a number of units that ends within a
    // character would keep it busy for ever. Nor does what could hide the same.
    for (eio, body) in [
        ("3", "1:🚌x".as_bytes()),
        ("3", "1:2x".as_bytes()),
        ("3", "5:2".as_bytes()),
        ("3", "x".as_bytes()),
        ("3", "1:29:40/é🚌x,19:40/é🚌x,19:40/é🚌x,1".as_bytes()),
        ("3=x", "1:29:40/é🚌x,19:40/é🚌x,19:40/é🚌x,1".as_bytes()),
        ("3", b"\x00\x05\xff40/xy\x00\x05\xff40/xy\x00\x05\xff40/xy"),
        ("3", b"\x00\x06\xff40/xy"),
        ("4", b"40/x,\x1e40/x,\x1e40/x,\x1e\xff"),
    ] {
        let url = format!("{}/socket.io/?EIO={eio}&transport=polling&token={}", server.gateway, token(OWNER));
        let session = open_session(server.http.get(&url)).await;
        let answer = server.http.post(format!("{url}&sid={session}")).body(body).send();
        let answer = timeout(PATIENCE, answer).await.expect("in time").expect("an answer");
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{eio} {}", body.escape_ascii());
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_very_many_packets_is_soon_read() {
    let server = TestServer::start(Db::Sqlite).await;
    let url = format!("{}/socket.io/?EIO=3&transport=polling", server.gateway);
    for packet in ["1:2", "\0\u{1}\u{ff}2"] {
        let url = format!("{url}&sid={}", open_session(server.http.get(&url)).await);
        let connected = server.http.get(&url).send().await.expect("an answer").text().await.expect("text");
        assert_eq!(connected, "2:40", "a client that is known may send more");
        let body: Vec<u8> = packet.chars().map(|char| char as u8).collect();
        let answer = server.http.post(&url).body(body.repeat(250_000)).send();
        let answer = timeout(Duration::from_secs(10), answer).await.expect("in time").expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_without_tokens_has_so_many_sockets() {
    let server = TestServer::start_with(Db::Sqlite, &[ON, ("LIMIT_ADDRESS_SOCKETS", "2")]).await;
    let clients = Clients::start();
    let _mine = [clients.connect(&server.gateway).await, clients.connect(&server.gateway).await];
    let mut third = clients.open("4", &server.gateway, json!({"transports": ["websocket"]}));
    assert_eq!(refusal(&mut third).await, "rate_limited");
    assert_eq!(counted(&server, "address_sockets").await, 1);
    let headers = json!({"X-Forwarded-For": "192.0.2.7"});
    let opts = json!({"transports": ["websocket"], "extraHeaders": headers});
    clients.open("4", &server.gateway, opts).connected().await;
    server.stop().await;
}

/// An answer that nobody reads is given up.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_nobody_reads_is_given_up() {
    let server =
        TestServer::start_with(Db::Sqlite, &[("BODY_TIMEOUT", "1s"), ("HEADER_TIMEOUT", "60s"), ON]).await;
    let id = server.create_at(0.5, 0.5).await;
    let pad = json!({"id": id, "properties": {"pad": "x".repeat(60_000)}});
    for _ in 0..60 {
        assert_eq!(server.put(&pad).await.0, StatusCode::CREATED);
    }
    let request = format!("GET /location/{id}/history HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a socket");
    let mut stream = socket.connect(server.addrs.0).await.expect("a connection");
    stream.write_all(request.as_bytes()).await.expect("to write");
    // Others are those of the test's own client, which come and go.
    let port = stream.local_addr().expect("an address").port();
    let started = Instant::now();
    while not_ended(&server.api).contains(&port) {
        assert!(started.elapsed() < PATIENCE, "given up");
        sleep(Duration::from_millis(20)).await;
    }
    // It has begun, and there was more.
    let mut byte = [0];
    assert_eq!(stream.read(&mut byte).await.expect("a beginning"), 1);
    server.stop().await;
}

/// Phones that send every second, maps with 200 rooms that come back again and again, many people in one house, a
/// map in five tabs, a family that chats, an importer.
#[tokio::test(flavor = "multi_thread")]
async fn an_honest_fleet_meets_no_limit() {
    const PHONES: u64 = 100;
    const ROOMS: usize = 200;
    let server = locked(Db::Sqlite, &[]).await;
    let mut ids = Vec::new();
    for user in 0..ROOMS as u64 {
        ids.push(Pass::user(100 + user % PHONES).create(&server).await);
    }
    let clients = Clients::start();
    let maps = async {
        for kind in KINDS {
            open_map(&server, &clients, kind, &ids).await;
        }
        // A browser is opened again with all its tabs.
        join_all((0..5).map(|_| open_map(&server, &clients, KINDS[0], &ids))).await;
    };
    let phones = async {
        let mut second = interval(Duration::from_secs(1));
        for _ in 0..4 {
            second.tick().await;
            let moves = (0..PHONES).map(|user| {
                let body = json!({"id": ids[user as usize], "geometry": point(1.5, 1.5)});
                let request = server.http.put(format!("{}/location", server.api)).json(&body);
                Pass::user(100 + user).on(request)
            });
            for answer in flood(moves).await {
                assert_eq!(answer.status(), StatusCode::CREATED);
            }
        }
    };
    tokio::join!(maps, phones, chat(&server, &clients), import(&server));
    let met = Exposition::scrape(&server).await;
    assert_eq!(met.sum("georoom_limited_total"), 0.0, "{met:?}");
    server.stop().await;
}

/// A map of an admin enters all its rooms at once.
async fn open_map(server: &TestServer, clients: &Clients, kind: (&str, &str), ids: &[u64]) {
    let mut map = Pass::admin(1).connect_as(clients, kind, &server.gateway).await;
    let joins: Vec<u64> =
        ids.iter().map(|id| map.emit_for_ack("join_room", json!({"locationId": id}))).collect();
    let (answers, _) = map.acks_seeing(&joins).await;
    for (answer, id) in answers.iter().zip(ids) {
        assert_eq!(*answer, id.to_string(), "{kind:?}");
    }
    map.kill();
}

/// One of a family says twenty things within ten seconds, and each of fifty people in a room greets all others.
async fn chat(server: &TestServer, clients: &Clients) {
    let owner = Pass::user(50);
    let (family, party) = (owner.create(server).await, owner.create(server).await);
    let say = async |client: &mut Client, room: u64, times: usize| {
        let body = json!({"roomName": room, "message": "I am on my way"});
        let said: Vec<_> = (0..times).map(|_| client.emit_for_ack("chat", body.clone())).collect();
        for answer in client.acks_seeing(&said).await.0 {
            assert_eq!(answer["message"], "I am on my way", "{answer}");
        }
    };
    let mut guests = Vec::new();
    for user in 1_000..1_049 {
        owner.grant(server, party, user, "viewer").await;
        let mut guest = Pass::user(user).connect(clients, &server.gateway).await;
        guest.ask("join_room", json!({"locationId": party})).await;
        guests.push(guest);
    }
    let mut mother = owner.connect(clients, &server.gateway).await;
    mother.ask("join_room", json!({"locationId": family})).await;
    mother.ask_seeing("join_room", json!({"locationId": party})).await;
    join_all(guests.iter_mut().map(|guest| say(guest, party, 1))).await;
    say(&mut mother, family, 20).await;
    say(&mut mother, party, 1).await;
}

/// Five hundred members are added, as fast as they can be.
async fn import(server: &TestServer) {
    let owner = Pass::user(60);
    let id = owner.create(server).await;
    for user in 2_000..2_500 {
        owner.grant(server, id, user, "viewer").await;
    }
}

/// A page whose name was made to resolve to this machine is no other origin for its browser.
#[tokio::test(flavor = "multi_thread")]
async fn open_mode_on_loopback_answers_to_no_foreign_name() {
    let open = TestServer::start(Db::Sqlite).await;
    let asked = TestServer::start_with(Db::Sqlite, &[("OPEN_MODE", "true")]).await;
    let locked = TestServer::start_with(Db::Sqlite, &[KEY]).await;
    let (api, gateway) = ("/location?perPage=1", "/socket.io/?EIO=4&transport=polling");
    for (host, is_served) in [("evil.example:3000", false), ("localhost:3000", true), ("127.0.0.1", true)] {
        for server in [&open, &asked, &locked] {
            let is_refused = !is_served && std::ptr::eq(server, &raw const open);
            for (addr, path) in [(server.addrs.0, api), (server.addrs.1, gateway)] {
                let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
                let said = rest(sent(addr, &request).await).await;
                assert_eq!(said.starts_with("HTTP/1.1 421 "), is_refused, "{host} {path}: {said}");
            }
        }
    }
    for server in [open, asked, locked] {
        server.stop().await;
    }
}
