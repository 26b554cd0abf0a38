//! Joining, leaving, relaying and being told: what a Socket.IO client lives through.

mod chats;
mod payloads;
mod streams;

use std::{
    collections::HashSet,
    sync::atomic::{AtomicU64, Ordering},
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
        stream::{amid_a_stream, amid_a_witnessed_stream},
    },
};

on_both_databases!(
    a_member_has_the_snapshot_and_every_update_and_nobody_else_does,
    since_says_whether_the_current_state_had_to_be_sent,
);

on_one_database!(
    joining_again_repeats_the_current_state_once_and_nothing_after_it,
    one_socket_in_several_rooms_has_the_updates_of_each,
    after_leaving_a_room_nothing_of_it_comes,
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
