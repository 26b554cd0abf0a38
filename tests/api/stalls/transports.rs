//! Changes of transport and odd frames while something is unread.

use super::*;

/// What is unread when a WebSocket takes over from polling is no reason to ask in the midst of it.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_not_read_may_change_the_transport() {
    let _share = machine::quarter().await;
    let (server, _log) = Process::serve(Db::Sqlite, &[SOCKETS]).await;
    let room = create_large(&server, 4_000).await;
    // As much as makes a socket wait for confirmation, too.
    for unread in [1, 30] {
        let mut polling = Polling::connect(&server.gateway).await;
        polling.ask("join_room", &json!({"locationId": room})).await;
        let first = Position::read(&polling.chat().await).expect("a position").version;
        for turn in 0..unread {
            server.move_to(room, 0.5, f64::from(turn) / 64.0).await;
        }
        let path = "/socket.io/";
        let mut client = WebSocket::open(&server.gateway, path, Some(&polling.session), false).await;
        client.send("2probe").await;
        assert_eq!(client.text().await.as_deref(), Some("3probe"));
        // A client first ends its polling, and goes on answering pings.
        let more = timeout(Duration::from_millis(300), client.text()).await;
        assert!(more.is_err(), "{more:?}");
        client.send("5").await;
        let head = first + unread as u64;
        let mut last = first;
        while last < head {
            match client.next().await {
                Seen::Position(position) => last = position.version,
                other => panic!("{other:?}"),
            }
        }
        for turn in 0..30 {
            server.move_to(room, 0.75, f64::from(turn) / 64.0).await;
            follow(&mut client, room, &mut last, head + 1 + turn as u64).await;
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_clients_change_the_transport_amid_updates() {
    let _share = machine::half().await;
    let (server, _log) = Process::serve(Db::Sqlite, &[SOCKETS]).await;
    let rooms = create(&server, 3).await;
    let load = Load::start(&server.api, &rooms, &[30, 30, 30]);
    let clients = Clients::start();
    for turn in 0..8 {
        let opened = VERSIONS.map(|version| {
            let client = clients.open(version, &server.gateway, json!({}));
            // Sent the moment it is connected, as applications do.
            for room in &rooms {
                client.emit("join_room", json!({"locationId": room}));
            }
            client
        });
        for (version, mut client) in VERSIONS.into_iter().zip(opened) {
            assert_eq!(client.upgraded().await, "websocket");
            let mut follower = Follower::new(&format!("{version}, {turn}"), Reader::Stock(client));
            follower.see_connect().await;
            let newest = load.heads();
            follower.reach(&newest).await;
        }
    }
    load.stop().await;
    server.stop().await;
}

/// Frames that a stock client never makes. The gateway follows them to find its pongs: if it lost its place
/// it would find none, and send nothing more.
#[tokio::test(flavor = "multi_thread")]
async fn odd_frames_do_not_confuse_what_follows_them() {
    let _share = machine::quarter().await;
    let (server, _log) = Process::serve(Db::Sqlite, &[SOCKETS]).await;
    let room = create_large(&server, 4_000).await;
    let chat = |turn: usize, length: usize| {
        let message = json!({"turn": turn, "pad": "x".repeat(length)});
        format!(r#"42["chat",{}]"#, json!({"message": message, "roomName": room.to_string()}))
    };
    let fragmented = |packet: &str, between: &[u8]| {
        let mut frames = Vec::new();
        let parts: Vec<_> = packet.as_bytes().chunks(packet.len().div_ceil(5)).collect();
        for (at, part) in parts.iter().enumerate() {
            frames.extend(frame(if at == 0 { TEXT } else { CONTINUATION }, at + 1 == parts.len(), part));
            if at + 1 < parts.len() {
                frames.extend_from_slice(between);
                frames.extend(frame(CONTINUATION, false, b""));
            }
        }
        frames
    };
    let long_ping = frame(PING, true, &[b'x'; 125]);
    let odd = [
        ("pongs nobody asked for", [frame(PONG, true, b"").repeat(20_000), Vec::new()].concat()),
        ("long pongs", frame(PONG, true, &[0x8a; 125]).repeat(2_000)),
        ("pings", long_ping.repeat(2_000)),
        ("empty pings", frame(PING, true, b"").repeat(2_000)),
        ("fragments", fragmented(&chat(0, 10), b"")),
        ("fragments with pings between", fragmented(&chat(1, 2_000), &long_ping)),
        ("a fragment that looks like pongs", fragmented(&chat(2, 10), &frame(PONG, true, &[0x8a, 0]))),
        (
            "125 and 126 bytes",
            [
                frame(TEXT, true, chat(3, 125 - chat(3, 0).len()).as_bytes()),
                frame(TEXT, true, chat(4, 126 - chat(4, 0).len()).as_bytes()),
            ]
            .concat(),
        ),
        ("many bytes", frame(TEXT, true, chat(5, 16_000).as_bytes())),
        ("too many for a chat", frame(TEXT, true, chat(99, 70_000).as_bytes())),
    ];
    let mut follower =
        Follower::new("odd", Reader::websocket(&server.gateway, "/socket.io/", false, &[room]).await);
    let mut version = 1;
    for (what, bytes) in odd {
        follower.name = what.to_owned();
        let Reader::WebSocket(client) = &mut follower.reader else { unreachable!() };
        // In one piece, and then what is not too long byte by byte.
        let (head, tail) = bytes.split_at(bytes.len().saturating_sub(600));
        client.raw(head).await;
        for byte in tail {
            client.raw(&[*byte]).await;
        }
        // Much more than the window, each version of it.
        for _ in 0..30 {
            server.move_to(room, 0.5, f64::from(version) / 1024.0).await;
            version += 1;
            loop {
                let seen = timeout(2 * SLACK, client.next()).await;
                match seen.unwrap_or_else(|_| panic!("{what}: version {version} does not come")) {
                    Seen::Position(position) => {
                        assert_eq!(position.version, version as u64, "{what}");
                        break;
                    }
                    Seen::Relayed(chat) => {
                        assert_eq!(chat["message"]["turn"], follower.relayed, "{what}");
                        follower.relayed += 1;
                    }
                    Seen::Exception(body) => assert_eq!(body["code"], "message_too_large", "{what}"),
                    other => panic!("{what}: {other:?}"),
                }
            }
        }
    }
    assert_eq!(follower.relayed, 6);
    server.stop().await;
}
