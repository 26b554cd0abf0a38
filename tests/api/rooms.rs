//! Joining, leaving, relaying and being told: what a Socket.IO client lives through.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicBool, Ordering},
};

use futures_util::future::join_all;
use reqwest::{StatusCode, header};
use serde_json::{Value, json};

use crate::{
    on_both_databases, on_one_database,
    support::{
        Db, TestServer,
        clients::{Client, Clients, KINDS, VERSIONS},
        point,
        process::Process,
    },
};

on_both_databases!(
    a_member_has_the_snapshot_and_every_update_and_nobody_else_does,
    joining_amid_a_stream_leaves_no_hole_and_no_repeat,
    the_first_to_join_a_quiet_room_amid_a_stream_misses_nothing,
    since_says_whether_the_current_state_had_to_be_sent,
    a_room_can_be_joined_as_soon_as_its_location_exists,
    who_has_an_answer_and_joins_finds_what_was_answered,
    a_deleted_location_closes_its_room,
);

on_one_database!(
    joining_again_repeats_the_current_state_once_and_nothing_after_it,
    a_location_is_named_by_its_number_or_its_decimal_string_and_nothing_like_it,
    a_payload_is_an_object_not_an_array_whose_items_would_fit,
    a_failure_is_an_ack_or_an_exception,
    one_socket_in_several_rooms_has_the_updates_of_each,
    after_leaving_a_room_nothing_of_it_comes,
    a_chat_is_relayed_to_members_as_its_sender_and_nothing_else_said_it,
    a_chat_may_be_any_json_up_to_its_limit,
    a_label_is_set_by_the_first_that_gives_one,
    no_client_learns_the_id_of_another,
    what_a_socket_sends_takes_effect_in_the_order_sent,
    a_burst_of_events_is_answered_event_by_event,
    pages_of_other_origins_cannot_connect,
    a_client_that_vanishes_leaves_its_rooms_and_can_come_back,
);

async fn a_member_has_the_snapshot_and_every_update_and_nobody_else_does(db: Db) {
    let server = TestServer::start(db).await;
    let clients = Clients::start();
    let id = server.create_at(13.4, 52.5).await;
    let other = server.create_at(0.5, 0.5).await;
    let mut member = clients.connect(&server.gateway).await;
    let mut stranger = clients.connect(&server.gateway).await;
    stranger.join(other).await;

    let snapshot = member.join(id).await;
    assert_eq!(snapshot["version"], 1);
    assert_eq!(snapshot["roomName"], id.to_string());
    assert_eq!(snapshot["message"], server.get(&format!("/location/{id}")).await.1);
    for version in 2..30 {
        let moved = server.move_to(id, 13.4, 52.5 + f64::from(version) / 1000.0).await;
        let update = member.event("chat").await;
        assert_eq!(
            update,
            json!({"userId": 1, "message": moved, "roomName": id.to_string(), "version": version})
        );
    }
    assert_eq!(stranger.drain().await, Vec::<Value>::new());
    server.stop().await;
}

async fn joining_again_repeats_the_current_state_once_and_nothing_after_it(db: Db) {
    let server = TestServer::start(db).await;
    let clients = Clients::start();
    let id = server.create_at(0.5, 0.5).await;
    for (version, transport) in KINDS {
        let mut member = clients.connect_as(version, transport, &server.gateway).await;
        let mut bystander = clients.connect(&server.gateway).await;
        bystander.join(id).await;
        let first = member.join(id).await;
        assert_eq!(member.join(id).await, first);
        let moved = server.move_to(id, 1.5, 1.5).await;
        assert_eq!(member.event("chat").await["message"], moved);
        assert_eq!(member.join(id).await["message"], moved);
        assert_eq!(member.join(id).await["message"], moved);
        let moved = server.move_to(id, 2.5, 2.5).await;
        assert_eq!(member.event("chat").await["message"], moved);
        assert_eq!(member.drain().await, Vec::<Value>::new());
        assert_eq!(bystander.drain().await.len(), 2, "the updates, not what others joining are sent");
        // Joined four times, left once.
        member.leave(id).await;
        server.move_to(id, 0.5, 0.5).await;
        assert_eq!(member.drain().await, Vec::<Value>::new());
    }
    server.stop().await;
}

/// Four writers move a location until `act` is done; returns what that returns and the last version.
async fn amid_a_stream<T>(server: &TestServer, id: u64, act: impl AsyncFnOnce() -> T) -> (T, u64) {
    let done = AtomicBool::new(false);
    let write = async |writer: u32| {
        while !done.load(Ordering::Relaxed) {
            server.move_to(id, f64::from(writer), 0.5).await;
        }
    };
    let act = async {
        let result = act().await;
        done.store(true, Ordering::Relaxed);
        result
    };
    let (result, ..) = tokio::join!(act, write(1), write(2), write(3), write(4));
    let (_, row) = server.get(&format!("/location/{id}")).await;
    (result, row["properties"]["version"].as_u64().expect("a version"))
}

async fn joining_amid_a_stream_leaves_no_hole_and_no_repeat(db: Db) {
    let server = TestServer::start(db).await;
    let clients = Clients::start();
    let id = server.create_at(0.5, 0.5).await;
    let mut waiting = Vec::new();
    for _ in 0..60 {
        waiting.push(clients.connect(&server.gateway).await);
    }
    let join_one_by_one = async || {
        let mut members: Vec<(Client, u64)> = Vec::new();
        for (n, mut client) in waiting.into_iter().enumerate() {
            // Nothing comes before the ack, and right after it the current state.
            let mut version = client.join(id).await["version"].as_u64().expect("a version");
            // Commits may be slower than joins: let the stream go on.
            if n % 2 == 0 {
                client.follow(id, version, version + 1).await;
                version += 1;
            }
            members.push((client, version));
        }
        members
    };
    let (members, head) = amid_a_stream(&server, id, join_one_by_one).await;
    assert!(head > 30, "the stream stood still at {head}");
    for (mut client, version) in members {
        client.follow(id, version, head).await;
        assert_eq!(client.drain().await, Vec::<Value>::new());
    }
    server.stop().await;
}

/// A room that nobody is in has to be read from the database, while updates go on.
async fn the_first_to_join_a_quiet_room_amid_a_stream_misses_nothing(db: Db) {
    let server = TestServer::start(db).await;
    let clients = Clients::start();
    let id = server.create_at(0.5, 0.5).await;
    let mut client = clients.connect(&server.gateway).await;
    let come_and_go = async || {
        let mut last = 0;
        for _ in 0..60 {
            let mut version = client.join(id).await["version"].as_u64().expect("a version");
            assert!(version >= last, "{version} after {last}");
            client.follow(id, version, version + 3).await;
            version += 3;
            let left = client.emit_for_ack("leave_room", json!({"locationId": id}));
            last = loop {
                let saw = client.next().await;
                if saw["kind"] == "ack" {
                    assert_eq!(saw["ack"], left);
                    break version;
                }
                version += 1;
                assert_eq!(saw["args"][0]["version"], version, "{saw}");
            };
        }
        client
    };
    let (mut client, head) = amid_a_stream(&server, id, come_and_go).await;
    assert!(head > 180);
    assert_eq!(client.drain().await, Vec::<Value>::new());
    server.stop().await;
}

async fn since_says_whether_the_current_state_had_to_be_sent(db: Db) {
    let server = TestServer::start(db).await;
    let clients = Clients::start();
    let id = server.create_at(0.5, 0.5).await;
    server.move_to(id, 1.5, 1.5).await;
    let state = server.move_to(id, 2.5, 2.5).await;
    let room = id.to_string();
    for version in VERSIONS {
        let mut client = clients.connect_as(version, "websocket", &server.gateway).await;
        let ack = client.ask("join_room", json!({"locationId": id, "since": null})).await;
        assert_eq!(ack, json!(room));
        assert_eq!(client.event("chat").await["message"], state);

        let ack = client.ask("join_room", json!({"locationId": id, "since": 3})).await;
        assert_eq!(ack, json!({"roomName": room, "version": 3, "recovered": true}));
        assert_eq!(client.drain().await, Vec::<Value>::new());

        // Above the head: of another time.
        for since in [json!(4), json!(1_000_000), json!(9_007_199_254_740_991_u64)] {
            let ack = client.ask("join_room", json!({"locationId": id, "since": since})).await;
            assert_eq!(ack, json!({"roomName": room, "version": 3, "recovered": false}), "{since}");
            assert_eq!(client.event("chat").await["message"], state, "{since}");
            assert_eq!(client.drain().await, Vec::<Value>::new(), "{since}");
        }
        // Below it: what was missed.
        for since in [0, 2] {
            let ack = client.ask("join_room", json!({"locationId": id, "since": since})).await;
            assert_eq!(ack, json!({"roomName": room, "version": 3, "recovered": true}), "{since}");
            assert_eq!(client.follow(id, since, 3).await.pop().expect("the head")["message"], state);
            assert_eq!(client.drain().await, Vec::<Value>::new(), "{since}");
        }
        for since in [json!(-1), json!(1.5), json!("3"), json!(""), json!(true), json!([3]), json!({})] {
            let ack = client.ask("join_room", json!({"locationId": id, "since": since})).await;
            assert_eq!(refused(&ack), "invalid_payload", "{since}");
        }
        assert_eq!(client.drain().await, Vec::<Value>::new());
        client.disconnect();
    }

    // Recovered, one is a member like any other.
    let mut client = clients.connect(&server.gateway).await;
    client.ask("join_room", json!({"locationId": id, "since": 3})).await;
    let moved = server.move_to(id, 3.5, 3.5).await;
    assert_eq!(
        client.event("chat").await,
        json!({"userId": 1, "message": moved, "roomName": room, "version": 4})
    );
    server.stop().await;
}

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

async fn a_room_can_be_joined_as_soon_as_its_location_exists(db: Db) {
    let server = TestServer::start(db).await;
    let clients = Clients::start();
    let next = server.create_at(0.5, 0.5).await + 1;
    let mut client = clients.connect(&server.gateway).await;
    for unknown in [next, 9_007_199_254_740_991] {
        let ack = client.ask("join_room", json!({"locationId": unknown})).await;
        assert_eq!(refused(&ack), "not_found");
        let ack = client.ask("join_room", json!({"locationId": unknown, "since": 1})).await;
        assert_eq!(refused(&ack), "not_found");
        // Refused is not entered.
        let ack = client.ask("chat", json!({"roomName": unknown.to_string(), "message": 1})).await;
        assert_eq!(refused(&ack), "not_in_room");
    }
    assert_eq!(server.create_at(1.5, 1.5).await, next);
    assert_eq!(client.join(next).await["version"], 1);
    server.move_to(next, 2.5, 2.5).await;
    client.follow(next, 1, 2).await;
    server.stop().await;
}

/// Also while the rooms have much to send: whose PUT was answered with version 7 has seen version 7, and
/// whose DELETE was answered finds nothing to join.
async fn who_has_an_answer_and_joins_finds_what_was_answered(db: Db) {
    let server = TestServer::start(db).await;
    let clients = Clients::start();
    let busy = server.create_at(0.5, 0.5).await;
    let mut crowd = Vec::new();
    for _ in 0..40 {
        let mut client = clients.connect(&server.gateway).await;
        client.join(busy).await;
        crowd.push(client);
    }
    let mut resident = clients.connect(&server.gateway).await;
    let mut writer = clients.connect(&server.gateway).await;
    let write_and_join = async || {
        for _ in 0..10 {
            let id = server.create_at(0.5, 0.5).await;
            resident.join(id).await;
            for version in 2..5 {
                server.move_to(id, 1.5, f64::from(version)).await;
                let ack = writer.ask("join_room", json!({"locationId": id, "since": version})).await;
                let recovered = json!({"roomName": id.to_string(), "version": version, "recovered": true});
                assert_eq!(ack, recovered);
                writer.leave(id).await;
            }
            resident.follow(id, 1, 4).await;
            assert_eq!(server.delete(id).await, StatusCode::NO_CONTENT);
            let ack = writer.ask("join_room", json!({"locationId": id})).await;
            assert!(ack["code"] == "not_found", "{ack}");
            resident.event("room_closed").await;
        }
    };
    amid_a_stream(&server, busy, write_and_join).await;
    server.stop().await;
}

/// The code of a failure, which has exactly these members.
#[track_caller]
fn refused(failure: &Value) -> &str {
    let mut members: Vec<_> = failure.as_object().expect("a failure").keys().map(String::as_str).collect();
    members.sort_unstable();
    assert_eq!(members, ["code", "message", "status"], "{failure}");
    assert_eq!(failure["status"], "error");
    assert!(failure["message"].as_str().is_some_and(|message| !message.is_empty()), "{failure}");
    failure["code"].as_str().expect("a code")
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

async fn one_socket_in_several_rooms_has_the_updates_of_each(db: Db) {
    let server = TestServer::start(db).await;
    let clients = Clients::start();
    let mut ids = Vec::new();
    for n in 0..3 {
        ids.push(server.create_at(f64::from(n), 0.5).await);
    }
    let [a, b, c] = ids[..] else { unreachable!() };
    let mut of_two = clients.connect(&server.gateway).await;
    let mut of_one = clients.connect(&server.gateway).await;
    of_two.join(a).await;
    of_two.join(b).await;
    of_one.join(c).await;
    for version in 2..12 {
        for id in [a, b, c] {
            server.move_to(id, 1.5, f64::from(version)).await;
        }
    }
    for version in 1..11 {
        of_two.follow(a, version, version + 1).await;
        of_two.follow(b, version, version + 1).await;
    }
    of_one.follow(c, 1, 11).await;

    // Leaving one is not leaving the other.
    of_two.leave(a).await;
    server.move_to(a, 2.5, 0.5).await;
    server.move_to(b, 2.5, 0.5).await;
    of_two.follow(b, 11, 12).await;
    assert_eq!(of_two.drain().await, Vec::<Value>::new());
    assert_eq!(of_one.drain().await, Vec::<Value>::new());
    server.stop().await;
}

async fn after_leaving_a_room_nothing_of_it_comes(db: Db) {
    let server = TestServer::start(db).await;
    let clients = Clients::start();
    let id = server.create_at(0.5, 0.5).await;
    let room = id.to_string();
    let mut stays = clients.connect(&server.gateway).await;
    stays.join(id).await;
    for (version, transport) in KINDS {
        let mut leaves = clients.connect_as(version, transport, &server.gateway).await;
        let head = leaves.join(id).await["version"].as_u64().expect("a version");
        leaves.leave(id).await;
        // Again, and a room it never was in: no failure.
        leaves.leave(id).await;
        leaves.leave(id + 1).await;
        server.move_to(id, 1.5, 1.5).await;
        stays.ask_seeing("chat", json!({"message": "gone?", "roomName": room})).await;
        assert_eq!(leaves.drain().await, Vec::<Value>::new());
        assert_eq!(leaves.join(id).await["version"], head + 1);
        leaves.disconnect();
    }
    server.stop().await;
}

async fn a_chat_is_relayed_to_members_as_its_sender_and_nothing_else_said_it(db: Db) {
    let server = TestServer::start(db).await;
    let clients = Clients::start();
    let id = server.create_at(0.5, 0.5).await;
    let elsewhere = server.create_at(0.5, 0.5).await;
    let room = id.to_string();
    let mut stranger = clients.connect(&server.gateway).await;
    stranger.join(elsewhere).await;
    let mut members = Vec::new();
    for (n, (version, transport)) in KINDS.into_iter().enumerate() {
        let mut member = clients.connect_as(version, transport, &server.gateway).await;
        member.ask("join", json!({"userId": 10 + n})).await;
        member.join(id).await;
        members.push(member);
    }

    let (_, feature) = server.get(&format!("/location/{id}")).await;
    for sender in 0..members.len() {
        for message in [json!("hello"), feature.clone()] {
            let forged = json!({
                "message": message, "roomName": room, "version": 99, "userId": 1, "userName": "boss",
                "socketId": "x", "status": "error", "roomname": elsewhere.to_string(),
            });
            let relayed = json!({"userId": 10 + sender, "message": message, "roomName": room});
            let (ack, before) = members[sender].ask_seeing("chat", forged.clone()).await;
            assert_eq!(ack, relayed);
            let own = match &before[..] {
                [saw] => saw["args"][0].clone(),
                _ => members[sender].event("chat").await,
            };
            assert_eq!(own, relayed);
            for (_, member) in members.iter_mut().enumerate().filter(|(n, _)| *n != sender) {
                assert_eq!(member.event("chat").await, relayed);
            }
            // Nobody waits for an ack, and everybody has it all the same.
            members[sender].emit("chat", forged);
            for member in &mut members {
                assert_eq!(member.event("chat").await, relayed);
            }
        }
    }

    // A room is only for those who are in it, by whatever name.
    for name in [json!(room), json!(id), json!(format!("{room} ")), json!([room]), json!("other")] {
        let ack = stranger.ask("chat", json!({"message": "let me in", "roomName": name})).await;
        assert!(["not_in_room", "invalid_payload"].contains(&refused(&ack)), "{name}: {ack}");
    }
    let ack = stranger.ask("chat", json!({"message": "let me in", "roomName": room})).await;
    assert_eq!(refused(&ack), "not_in_room");
    for client in members.iter_mut().chain([&mut stranger]) {
        assert_eq!(client.drain().await, Vec::<Value>::new());
    }
    server.stop().await;
}

async fn a_chat_may_be_any_json_up_to_its_limit(db: Db) {
    let server = TestServer::start(db).await;
    let clients = Clients::start();
    let id = server.create_at(0.5, 0.5).await;
    let room = id.to_string();
    let mut listener = clients.connect(&server.gateway).await;
    listener.join(id).await;
    let text = |bytes: usize| json!("x".repeat(bytes - 2));
    for (version, transport) in KINDS {
        let mut sender = clients.connect_as(version, transport, &server.gateway).await;
        sender.join(id).await;
        let fits = [
            json!(null),
            json!(false),
            json!(0),
            json!(-1.5e-300),
            json!(9_007_199_254_740_991_u64),
            json!(""),
            json!("\u{0}\"\\\u{2028}é😀"),
            json!([]),
            json!([[null, {}], 1]),
            json!({"z": 1, "a": {"version": 3}, "": null}),
            json!({"_placeholder": true, "num": 0}),
            text(16_384),
            json!("é".repeat(8_191)),
        ];
        for message in fits {
            let relayed = json!({"userId": 1, "message": message, "roomName": room});
            sender.emit("chat", json!({"message": message, "roomName": room}));
            assert_eq!(sender.event("chat").await, relayed, "{version} {transport}");
            assert_eq!(listener.event("chat").await, relayed);
        }
        for message in [text(16_385), json!("é".repeat(8_192)), text(100_000)] {
            let payload = json!({"message": message, "roomName": room});
            let ack = sender.ask("chat", payload.clone()).await;
            assert_eq!(refused(&ack), "message_too_large", "{version} {transport}");
            sender.emit("chat", payload);
            assert_eq!(sender.event("exception").await, ack);
        }
        // The socket is still there, and in its room.
        server.move_to(id, 1.5, 1.5).await;
        assert_eq!(sender.event("chat").await["message"]["id"], id);
        listener.event("chat").await;
        sender.disconnect();
    }
    assert_eq!(listener.drain().await, Vec::<Value>::new());
    server.stop().await;
}

async fn a_label_is_set_by_the_first_that_gives_one(db: Db) {
    let server = TestServer::start(db).await;
    let clients = Clients::start();
    let id = server.create_at(0.5, 0.5).await;
    let room = id.to_string();
    let says = async |client: &mut Client| {
        client.emit("chat", json!({"message": "me", "roomName": room}));
        client.event("chat").await["userId"].clone()
    };
    for (version, transport) in KINDS {
        // Nobody said: the default.
        let mut client = clients.open(version, &server.gateway, json!({"transports": [transport]}));
        let own_id = client.connected().await;
        client.join(id).await;
        assert_eq!(says(&mut client).await, 1);
        // Said late is said first.
        let ack = client.ask("join", json!({"userId": 7, "userName": "Ada"})).await;
        assert_eq!(ack, json!({"userId": 7, "socketId": own_id}));
        assert_eq!(says(&mut client).await, 7);
        // Once said it stays.
        let ack = client.ask("join", json!({"userId": 8})).await;
        assert_eq!(ack, json!({"userId": 7, "socketId": own_id}));
        client.emit("join_room", json!({"locationId": id, "userId": 9}));
        client.event("chat").await;
        assert_eq!(says(&mut client).await, 7);
        client.disconnect();

        let mut client = clients.connect_as(version, transport, &server.gateway).await;
        client.emit("join_room", json!({"locationId": id, "userId": 0}));
        client.event("chat").await;
        assert_eq!(says(&mut client).await, 0);
        assert_eq!(client.ask("join", json!({"userId": 5})).await["userId"], 0);
        client.disconnect();
    }
    server.stop().await;
}

async fn no_client_learns_the_id_of_another(db: Db) {
    let server = TestServer::start(db).await;
    let clients = Clients::start();
    let id = server.create_at(0.5, 0.5).await;
    let room = id.to_string();
    let mut all = Vec::new();
    for (version, transport) in KINDS {
        let mut client = clients.open(version, &server.gateway, json!({"transports": [transport]}));
        let own_id = client.connected().await;
        assert!(own_id.len() >= 15, "{own_id}");
        all.push((client, own_id, String::new()));
    }
    assert_eq!(all.iter().map(|(_, own_id, _)| own_id).collect::<HashSet<_>>().len(), 6);
    for round in 0..3 {
        for (client, _, _) in &mut all {
            client.emit_for_ack("join", json!({"userId": round, "userName": "somebody"}));
            client.emit_for_ack("join_room", json!({"locationId": id}));
            client.emit_for_ack("join_room", json!({"locationId": id, "since": 1}));
            client.emit_for_ack("chat", json!({"message": "hello", "roomName": room}));
            client.emit_for_ack("no_such_event", json!({}));
            client.emit("chat", json!({}));
        }
        for (client, _, seen) in &mut all {
            *seen += &json!(client.drain().await).to_string();
        }
        server.move_to(id, 1.5, f64::from(round)).await;
        let (leaver, _, seen) = &mut all[round as usize];
        leaver.emit_for_ack("leave_room", json!({"locationId": id}));
        *seen += &json!(leaver.drain().await).to_string();
    }
    let (gone, ..) = &all[5];
    gone.disconnect();
    assert_eq!(server.delete(id).await, StatusCode::NO_CONTENT);
    for (client, _, seen) in &mut all[..5] {
        *seen += &json!(client.drain().await).to_string();
    }

    for (n, (_, own_id, seen)) in all.iter().enumerate() {
        assert_eq!(seen.matches(own_id.as_str()).count(), 3, "told by `join` and by nothing else");
        for (other, (_, other_id, _)) in all.iter().enumerate() {
            assert!(n == other || !seen.contains(other_id.as_str()), "{n} was told the id of {other}");
        }
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

async fn a_deleted_location_closes_its_room(db: Db) {
    let server = TestServer::start(db).await;
    let clients = Clients::start();
    let (id, other) = (server.create_at(0.5, 0.5).await, server.create_at(0.5, 0.5).await);
    let room = id.to_string();
    let mut members = Vec::new();
    for (version, transport) in KINDS {
        let mut member = clients.connect_as(version, transport, &server.gateway).await;
        member.join(other).await;
        member.join(id).await;
        members.push(member);
    }
    let mut left = clients.connect(&server.gateway).await;
    left.join(id).await;
    left.leave(id).await;

    // Some of these are too late.
    let writes = join_all((0..40).map(|n| {
        let body = json!({"id": id, "geometry": point(f64::from(n), 0.0)});
        let server = &server;
        async move { server.put(&body).await.0 }
    }));
    let (statuses, deleted) = tokio::join!(writes, server.delete(id));
    assert_eq!(deleted, StatusCode::NO_CONTENT);
    let committed = statuses.iter().filter(|status| **status == StatusCode::CREATED).count() as u64;
    let refused_writes = statuses.iter().filter(|status| **status == StatusCode::NOT_FOUND).count() as u64;
    assert_eq!(committed + refused_writes, 40, "{statuses:?}");
    for member in &mut members {
        member.follow(id, 1, 1 + committed).await;
        let closed = member.event("room_closed").await;
        assert_eq!(closed, json!({"roomName": room, "reason": "deleted"}));
        let ack = member.ask("chat", json!({"message": "anybody?", "roomName": room})).await;
        assert_eq!(refused(&ack), "not_in_room");
        for payload in [json!({"locationId": id}), json!({"locationId": room, "since": 1 + committed})] {
            assert_eq!(refused(&member.ask("join_room", payload).await), "not_found");
        }
        member.leave(id).await;
    }
    // Their other room is not touched.
    server.move_to(other, 1.5, 1.5).await;
    for member in &mut members {
        member.follow(other, 1, 2).await;
        assert_eq!(member.drain().await, Vec::<Value>::new());
    }
    assert_eq!(left.drain().await, Vec::<Value>::new());
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

/// Also what the log says of sockets: a line each, and never a whole id.
async fn a_client_that_vanishes_leaves_its_rooms_and_can_come_back(db: Db) {
    let heartbeat = [("PING_INTERVAL", "300ms"), ("PING_TIMEOUT", "2s")];
    let (server, mut log) = Process::serve(db, &heartbeat).await;
    let clients = Clients::start();
    let id = server.create_at(0.5, 0.5).await;
    let room = id.to_string();
    let mut witness = clients.connect(&server.gateway).await;
    witness.join(id).await;
    let open = async |(version, transport): (&str, &str)| {
        let mut client = clients.open(version, &server.gateway, json!({"transports": [transport]}));
        let own_id = client.connected().await;
        (client, own_id)
    };
    let short = |own_id: &str| own_id[..6].to_owned();
    let mut ids = Vec::new();
    for kind in KINDS {
        let (mut client, own_id) = open(kind).await;
        client.join(id).await;
        log.find("connect", &[("socket", short(&own_id).as_str()), ("client", "127.0.0.1")]).await;
        log.find("join", &[("socket", short(&own_id).as_str()), ("room", &room)]).await;
        client.kill();
        ids.push(own_id);
    }
    for (kind, own_id) in KINDS.iter().zip(&ids) {
        // Who polls is missed at the next heartbeat.
        let gone = log.find("disconnect", &[("socket", &short(own_id))]).await;
        let reason = gone["reason"].as_str().expect("a reason");
        assert!(["transport_close", "transport_error", "ping_timeout"].contains(&reason), "{kind:?}: {gone}");
    }
    server.move_to(id, 1.5, 1.5).await;
    witness.follow(id, 1, 2).await;

    for (head, kind) in (2..).zip(KINDS) {
        let (mut client, own_id) = open(kind).await;
        assert_eq!(client.join(id).await["version"], head);
        server.move_to(id, 2.5, 2.5).await;
        client.follow(id, head, head + 1).await;
        witness.follow(id, head, head + 1).await;
        client.leave(id).await;
        log.find("leave", &[("socket", short(&own_id).as_str()), ("room", &room)]).await;
        client.disconnect();
        log.find("disconnect", &[("socket", short(&own_id).as_str()), ("reason", "client_disconnect")]).await;
        ids.push(own_id);
    }
    assert_eq!(witness.drain().await, Vec::<Value>::new());
    for line in &log.read {
        let text = line.to_string();
        assert!(!ids.iter().any(|own_id| text.contains(own_id.as_str())), "a whole id: {text}");
    }
    server.stop().await;
}
