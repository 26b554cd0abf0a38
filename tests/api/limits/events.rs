//! Limits of sockets and of what they send.

use super::*;

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
