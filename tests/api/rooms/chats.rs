//! What members say to one another, and what they learn of one another.

use super::*;

on_one_database!(
    a_chat_is_relayed_to_members_as_its_sender_and_nothing_else_said_it,
    a_chat_may_be_any_json_up_to_its_limit,
    a_label_is_set_by_the_first_that_gives_one,
    no_client_learns_the_id_of_another,
);

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
