//! Joins amid a stream of updates, and rooms that close.

use super::*;

on_both_databases!(
    joining_amid_a_stream_leaves_no_hole_and_no_repeat,
    the_first_to_join_a_quiet_room_amid_a_stream_misses_nothing,
    a_room_can_be_joined_as_soon_as_its_location_exists,
    who_has_an_answer_and_joins_finds_what_was_answered,
    a_deleted_location_closes_its_room,
);

on_one_database!(a_client_that_vanishes_leaves_its_rooms_and_can_come_back,);

async fn joining_amid_a_stream_leaves_no_hole_and_no_repeat(db: Db) {
    let server = TestServer::start(db).await;
    let clients = Clients::start();
    let id = server.create_at(0.5, 0.5).await;
    let mut waiting = Vec::new();
    for _ in 0..60 {
        waiting.push(clients.connect(&server.gateway).await);
    }
    let join_one_by_one = async {
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
    let (members, head) = amid_a_witnessed_stream(&server, &clients, id, join_one_by_one).await;
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
    // Nobody is waited for while nobody is in the room.
    let seen = [AtomicU64::new(u64::MAX)];
    let come_and_go = async {
        let mut last = 0;
        for _ in 0..60 {
            let mut version = client.join(id).await["version"].as_u64().expect("a version");
            assert!(version >= last, "{version} after {last}");
            seen[0].store(version, Ordering::Relaxed);
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
            seen[0].store(u64::MAX, Ordering::Relaxed);
        }
        client
    };
    let (mut client, head) = amid_a_stream(&server, id, &seen, come_and_go).await;
    assert!(head > 180);
    assert_eq!(client.drain().await, Vec::<Value>::new());
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
    let write_and_join = async {
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
    amid_a_witnessed_stream(&server, &clients, busy, write_and_join).await;
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
