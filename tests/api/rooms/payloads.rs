//! Events that are refused, and the order in which events take effect.

use super::*;

on_one_database!(
    a_location_is_named_by_its_number_or_its_decimal_string_and_nothing_like_it,
    a_payload_is_an_object_not_an_array_whose_items_would_fit,
    a_failure_is_an_ack_or_an_exception,
    what_a_socket_sends_takes_effect_in_the_order_sent,
    a_burst_of_events_is_answered_event_by_event,
    pages_of_other_origins_cannot_connect,
);

async fn a_location_is_named_by_its_number_or_its_decimal_string_and_nothing_like_it(db: Db) {
    let server = TestServer::start(db).await;
    let clients = Clients::start();
    let id = server.create_at(0.5, 0.5).await;
    let room = id.to_string();
    for (version, transport) in KINDS {
        let mut client = clients.connect_as(version, transport, &server.gateway).await;
        for name in [json!(id), json!(room), json!(id as f64)] {
            assert_eq!(client.ask("join_room", json!({"locationId": name})).await, room);
            assert_eq!(client.event("chat").await["version"], 1);
            assert_eq!(client.ask("leave_room", json!({"locationId": name})).await, room);
        }
        let alike = [
            json!(format!("{room} ")),
            json!(format!("0{room}")),
            json!(format!(" {room}")),
            json!(format!("+{room}")),
            json!(format!("{room}e0")),
            json!(format!("{room}.0")),
            json!(format!("0x{room}")),
            json!(format!("{room}\u{0}")),
            json!("1.5"),
            json!(1.5),
            json!(-1),
            json!("-1"),
            json!(0),
            json!("0"),
            json!(9_007_199_254_740_992_u64),
            json!("9007199254740992"),
            json!(1e300),
            json!(""),
            json!(null),
            json!(true),
            json!([id]),
            json!({}),
        ];
        for event in ["join_room", "leave_room"] {
            for name in &alike {
                let ack = client.ask(event, json!({"locationId": name})).await;
                assert_eq!(refused(&ack), "invalid_payload", "{event} {name}");
            }
            for payload in [json!(null), json!(id), json!(room), json!([]), json!({}), json!(true)] {
                let ack = client.ask(event, payload.clone()).await;
                assert_eq!(refused(&ack), "invalid_payload", "{event} {payload}");
            }
        }
        client.disconnect();
    }
    server.stop().await;
}

async fn a_payload_is_an_object_not_an_array_whose_items_would_fit(db: Db) {
    let server = TestServer::start(db).await;
    let clients = Clients::start();
    let id = server.create_at(0.5, 0.5).await;
    let room = id.to_string();
    let mut client = clients.connect(&server.gateway).await;
    client.join(id).await;
    for (event, payload) in [
        ("join_room", json!([id, null, null])),
        ("leave_room", json!([id])),
        ("chat", json!(["hello", room])),
        ("join", json!([7, null])),
    ] {
        let ack = client.ask(event, payload.clone()).await;
        assert!(ack["code"] == "invalid_payload", "{event} {payload} was answered {ack}");
    }
    server.stop().await;
}

async fn a_failure_is_an_ack_or_an_exception(db: Db) {
    let server = TestServer::start(db).await;
    let clients = Clients::start();
    let id = server.create_at(0.5, 0.5).await;
    let room = id.to_string();
    let cases = [
        ("join_room", json!({"locationId": "x"}), "invalid_payload"),
        ("join_room", json!({"locationId": id, "userId": -1}), "invalid_payload"),
        ("join_room", json!({"locationId": id + 1}), "not_found"),
        ("leave_room", json!({}), "invalid_payload"),
        ("chat", json!({"roomName": room}), "invalid_payload"),
        ("chat", json!({"message": "hello"}), "invalid_payload"),
        ("chat", json!({"message": "hello", "roomName": room}), "not_in_room"),
        ("chat", json!({"message": "x".repeat(20_000), "roomName": room}), "message_too_large"),
        ("join", json!({}), "invalid_payload"),
        ("join", json!({"userId": "07"}), "invalid_payload"),
        ("join", json!({"userId": 7, "userName": 7}), "invalid_payload"),
        ("room_closed", json!({"roomName": room}), "unknown_event"),
        ("", json!({}), "unknown_event"),
    ];
    for (version, transport) in KINDS {
        let mut client = clients.connect_as(version, transport, &server.gateway).await;
        for (event, payload, code) in &cases {
            let ack = client.ask(event, payload.clone()).await;
            assert_eq!(refused(&ack), *code, "{version} {transport} {event} {payload}");
            client.emit(event, payload.clone());
            let exception = client.event("exception").await;
            assert_eq!(exception, ack, "{version} {transport} {event} {payload}");
        }
        for event in ["join_room", "leave_room", "chat", "join"] {
            client.emit_bare(event, true);
            let ack = client.next().await;
            assert_eq!(ack["kind"], "ack", "{version} {transport} {event}: {ack}");
            assert_eq!(refused(&ack["args"][0]), "invalid_payload");
            let message = ack["args"][0]["message"].as_str().expect("text");
            assert!(message.contains("no payload"), "{event}: {message}");
            client.emit_bare(event, false);
            assert_eq!(client.event("exception").await, ack["args"][0]);
        }
        client.emit_bare("no_such_event", true);
        assert_eq!(refused(&client.next().await["args"][0]), "unknown_event");
        // And all of it left the socket in good health; a success without an ack is silent.
        client.emit("join", json!({"userId": 3}));
        client.emit("join_room", json!({"locationId": id}));
        assert_eq!(client.event("chat").await["version"], 1);
        client.emit("leave_room", json!({"locationId": id}));
        assert_eq!(client.drain().await, Vec::<Value>::new());
        client.disconnect();
    }
    server.stop().await;
}

async fn what_a_socket_sends_takes_effect_in_the_order_sent(db: Db) {
    let server = TestServer::start(db).await;
    let clients = Clients::start();
    let id = server.create_at(0.5, 0.5).await;
    let room = id.to_string();
    for (version, transport) in KINDS {
        let mut client = clients.connect_as(version, transport, &server.gateway).await;
        // As many at once as may wait, and a little less.
        for batch in 0..5 {
            let sent: Vec<_> = (0..40)
                .map(|n| {
                    let message = json!([batch, n]);
                    let join = client.emit_for_ack("join_room", json!({"locationId": id}));
                    let said = client.emit_for_ack("chat", json!({"roomName": room, "message": message}));
                    let left = client.emit_for_ack("leave_room", json!({"locationId": id}));
                    let late = client.emit_for_ack("chat", json!({"roomName": room, "message": "late"}));
                    (message, join, said, left, late)
                })
                .collect();
            for (message, join, said, left, late) in sent {
                assert_eq!(client.ack(join).await, room);
                assert_eq!(client.event("chat").await["version"], 1);
                let relayed = json!({"userId": 1, "message": message, "roomName": room});
                let mut two = [client.next().await, client.next().await];
                two.sort_by_key(|saw| saw["kind"].to_string());
                let [ack, event] = two;
                assert_eq!((&ack["ack"], &ack["args"][0]), (&json!(said), &relayed), "{version} {transport}");
                assert_eq!((&event["event"], &event["args"][0]), (&json!("chat"), &relayed));
                assert_eq!(client.ack(left).await, room);
                assert_eq!(refused(&client.ack(late).await), "not_in_room");
            }
        }
        assert_eq!(client.drain().await, Vec::<Value>::new());
        client.disconnect();
    }
    server.stop().await;
}

/// Sends a burst of joins, which must each be answered once, with the room's name or one of these codes.
/// Returns how many got in.
async fn burst(client: &mut Client, location: u64, times: usize, codes: &[&str]) -> usize {
    let payload = json!({"locationId": location});
    let mut waiting: HashSet<u64> =
        (0..times).map(|_| client.emit_for_ack("join_room", payload.clone())).collect();
    let (mut joined, mut states) = (0, 0);
    while !waiting.is_empty() {
        let saw = client.next().await;
        if saw["kind"] == "event" {
            assert_eq!((&saw["event"], &saw["args"][0]["version"]), (&json!("chat"), &json!(1)), "{saw}");
            states += 1;
            continue;
        }
        assert_eq!(saw["kind"], "ack", "{saw}");
        assert!(waiting.remove(&saw["ack"].as_u64().expect("a number")), "answered twice: {saw}");
        match &saw["args"][0] {
            name if *name == json!(location.to_string()) => joined += 1,
            refusal => assert!(codes.contains(&refused(refusal)), "{saw}"),
        }
    }
    states += client.drain().await.len();
    // While too much is unread, only the newest of them waits.
    assert!(states <= joined && (states > 0) == (joined > 0), "{states} of {joined}");
    joined
}

async fn a_burst_of_events_is_answered_event_by_event(db: Db) {
    let server = TestServer::start(db).await;
    let clients = Clients::start();
    for (version, transport) in KINDS {
        let id = server.create_at(0.5, 0.5).await;
        let mut client = clients.connect_as(version, transport, &server.gateway).await;
        assert!(burst(&mut client, id, 300, &["rate_limited"]).await > 0, "{version} {transport}");
        // Each of these asks the database, so that many wait.
        let joined = burst(&mut client, id + 1, 600, &["rate_limited", "not_found"]).await;
        assert_eq!(joined, 0);
        // The socket lives, and is where it was.
        server.move_to(id, 1.5, 1.5).await;
        assert_eq!(client.event("chat").await["roomName"], id.to_string());
        client.disconnect();
    }
    server.stop().await;
}

async fn pages_of_other_origins_cannot_connect(db: Db) {
    let server = TestServer::start(db).await;
    let clients = Clients::start();
    let (here, foreign) = ("http://localhost:5173", "https://evil.example");
    for (version, transport) in KINDS {
        let open = |origin: &str| {
            let opts = json!({"transports": [transport], "extraHeaders": {"Origin": origin}});
            clients.open(version, &server.gateway, opts)
        };
        open(here).connected().await;
        let saw = open(foreign).next().await;
        assert_eq!(saw["kind"], "connect_error", "{version} {transport}: {saw}");
    }

    for (origin, polling, websocket) in [
        (None, StatusCode::OK, StatusCode::SWITCHING_PROTOCOLS),
        (Some(here), StatusCode::OK, StatusCode::SWITCHING_PROTOCOLS),
        (Some("http://127.0.0.1:8080"), StatusCode::OK, StatusCode::SWITCHING_PROTOCOLS),
        (Some(foreign), StatusCode::FORBIDDEN, StatusCode::FORBIDDEN),
        (Some("null"), StatusCode::FORBIDDEN, StatusCode::FORBIDDEN),
        (Some("http://localhost.evil.example"), StatusCode::FORBIDDEN, StatusCode::FORBIDDEN),
    ] {
        for protocol in ["3", "4"] {
            let request = |transport: &str| {
                let url = format!("{}/socket.io/?EIO={protocol}&transport={transport}", server.gateway);
                let request = server.http.get(url);
                match origin {
                    Some(origin) => request.header(header::ORIGIN, origin),
                    None => request,
                }
            };
            let answer = request("polling").send().await.expect("an answer");
            assert_eq!(answer.status(), polling, "{origin:?}");
            let readable = answer.headers().get(header::ACCESS_CONTROL_ALLOW_ORIGIN);
            let readable = readable.map(|origin| origin.to_str().expect("text").to_owned());
            let allowed = origin.filter(|_| polling == StatusCode::OK);
            assert_eq!(readable.as_deref(), allowed, "{origin:?}");
            let body = answer.text().await.expect("text");
            assert_eq!(body.contains("\"sid\""), polling == StatusCode::OK, "{origin:?}: {body}");

            let answer = request("websocket")
                .header(header::CONNECTION, "Upgrade")
                .header(header::UPGRADE, "websocket")
                .header(header::SEC_WEBSOCKET_VERSION, "13")
                .header(header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==")
                .send()
                .await
                .expect("an answer");
            assert_eq!(answer.status(), websocket, "{origin:?}");
        }
    }
    server.stop().await;
}
