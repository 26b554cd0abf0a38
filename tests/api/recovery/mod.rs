//! Coming back with `since`: what was missed, in order and once, or word that it cannot be had.

mod bounds;
mod streams;

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{
    on_both_databases, on_one_database,
    support::{
        Db, QUIET, TestDatabase, TestServer,
        clients::{Client, Clients, KINDS},
        history::version,
        point,
        polling::Polling,
        process::Process,
        proxy::Proxy,
        stream::amid_a_stream,
        truth::Random,
    },
};

on_both_databases!(
    what_was_missed_is_replayed_in_a_live_room_and_in_a_cold_one,
    a_replay_is_what_members_were_sent_byte_for_byte,
);

/// What a room is sent at an update.
fn chat(feature: &Value) -> Value {
    json!({
        "userId": feature["properties"]["updatedBy"],
        "message": feature,
        "roomName": feature["id"].to_string(),
        "version": version(feature),
    })
}

fn recovery(id: u64, version: u64, recovered: bool) -> Value {
    json!({"roomName": id.to_string(), "version": version, "recovered": recovered})
}

/// Joins with `since`; what was sent before the ack fails the test.
async fn rejoin(client: &mut Client, id: u64, since: u64) -> Value {
    client.ask("join_room", json!({"locationId": id, "since": since})).await
}

/// Joins with `since` and must be sent these, in their order, and nothing else.
async fn assert_replayed(client: &mut Client, id: u64, since: u64, missed: &[Value]) {
    let head = since + missed.len() as u64;
    assert_eq!(rejoin(client, id, since).await, recovery(id, head, true), "since {since}");
    for feature in missed {
        assert_eq!(client.event("chat").await, chat(feature), "since {since}");
    }
    assert_eq!(client.drain().await, Vec::<Value>::new(), "since {since}");
}

/// Joins with `since` and must be sent the current state instead, once.
async fn assert_not_recovered(client: &mut Client, id: u64, since: u64, head: &Value) {
    assert_eq!(rejoin(client, id, since).await, recovery(id, version(head), false), "since {since}");
    assert_eq!(client.event("chat").await, chat(head), "since {since}");
    assert_eq!(client.drain().await, Vec::<Value>::new(), "since {since}");
}

/// Moves a location so many times, one caller after the other's answer; returns the Features.
async fn moves(server: &TestServer, id: u64, times: u64) -> Vec<Value> {
    let mut features = Vec::new();
    for turn in 0..times {
        features.push(server.move_to(id, turn as f64 / 1e3 + 0.0005, 0.5).await);
    }
    features
}

/// The same by many callers at once, for where the order does not matter.
async fn move_often(server: &TestServer, id: u64, times: usize) {
    const CALLERS: usize = 50;
    assert!(times.is_multiple_of(CALLERS));
    let moves = async |caller: usize| {
        for turn in 0..times / CALLERS {
            server.move_to(id, caller as f64 + 0.5, turn as f64 / 100.0 + 0.005).await;
        }
    };
    join_all((0..CALLERS).map(moves)).await;
}

async fn what_was_missed_is_replayed_in_a_live_room_and_in_a_cold_one(db: Db) {
    let server = TestServer::start(db).await;
    let clients = Clients::start();
    let id = server.create_at(0.5, 0.5).await;
    // The Feature of version v stands at v - 1.
    let mut all = vec![server.get(&format!("/location/{id}")).await.1];
    all.extend(moves(&server, id, 4).await);
    for live in [false, true] {
        let mut resident = clients.connect(&server.gateway).await;
        if live {
            resident.join(id).await;
        }
        for (generation, transport) in KINDS {
            let mut client = clients.connect_as(generation, transport, &server.gateway).await;
            let head = all.len() as u64;
            // As if it were not there.
            let ack = client.ask("join_room", json!({"locationId": id, "since": null})).await;
            assert_eq!(ack, json!(id.to_string()));
            assert_eq!(client.event("chat").await, chat(&all[head as usize - 1]));
            assert_eq!(client.drain().await, Vec::<Value>::new());
            client.leave(id).await;
            for since in [0, 1, 2, head / 2, head - 1, head] {
                assert_replayed(&mut client, id, since, &all[since as usize..]).await;
                client.leave(id).await;
            }
            for above in [head + 1, 1_000_000, 9_007_199_254_740_991] {
                assert_not_recovered(&mut client, id, above, &all[head as usize - 1]).await;
                client.leave(id).await;
            }
            // Whichever way it came in, it is a member then.
            for behind in [head, 0] {
                let head = all.len() as u64;
                let since = head.saturating_sub(behind);
                assert_replayed(&mut client, id, since, &all[since as usize..]).await;
                all.push(server.move_to(id, 0.5, 0.5 + all.len() as f64 / 100.0).await);
                assert_eq!(client.event("chat").await, chat(&all[head as usize]));
                client.leave(id).await;
            }
            assert_not_recovered(&mut client, id, 1_000, &all[all.len() - 1]).await;
            all.push(server.move_to(id, 0.5, 0.5 + all.len() as f64 / 100.0).await);
            assert_eq!(client.event("chat").await, chat(&all[all.len() - 1]));
            client.disconnect();
        }
        let told = if live { 3 * KINDS.len() } else { 0 };
        assert_eq!(resident.drain().await.len(), told, "nothing of what others recover");
        resident.leave(id).await;
    }
    server.stop().await;
}

async fn a_replay_is_what_members_were_sent_byte_for_byte(db: Db) {
    let server = TestServer::start(db).await;
    let id = server.create_at(0.5, 0.5).await;
    let mut member = Polling::connect(&server.gateway).await;
    assert_eq!(member.ask("join_room", &json!({"locationId": id})).await, json!(id.to_string()).to_string());
    member.chat().await;
    let mut sent = Vec::new();
    for (turn, update) in [
        json!({"geometry": {"type": "Point", "coordinates": [-0.0, 5e-324, -1e300]}}),
        json!({"geometry": {"type": "Point", "coordinates": [0.1, 0.30000000000000004, 100]}}),
        json!({"properties": {"b": 1, "a": {"z": 1.0, "y": -0.0}, "ü\"\\\u{0}": "\u{1f68c}\u{2028}"}}),
        json!({"properties": {"b": null, "c": 1e300, "d": 123456789012345678901234567890_f64}}),
        json!({"geometry": {"type": "GeometryCollection", "geometries": [point(1.0, 2.0)]}}),
        json!({"properties": {}}),
    ]
    .into_iter()
    .enumerate()
    {
        let mut update = update;
        update["id"] = json!(id);
        update["userId"] = json!(turn);
        server.update(&server.api, &update).await;
        sent.push(member.chat().await);
    }
    let mut late = Polling::connect(&server.gateway).await;
    for since in [1, 4] {
        late.ask("join_room", &json!({"locationId": id, "since": since})).await;
        for text in &sent[since - 1..] {
            assert_eq!(late.chat().await, *text);
        }
    }
    server.stop().await;
}
