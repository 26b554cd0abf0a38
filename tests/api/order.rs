//! Many writers and many subscribers: one order for everybody, and each version exactly once.

use std::collections::{BTreeMap, HashSet};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    on_both_databases,
    support::{
        Db, TestServer,
        clients::{Client, Clients},
        point,
        process::Process,
    },
};

on_both_databases!(
    writers_of_one_location_are_put_in_one_order_that_everybody_sees,
    each_room_of_many_sees_its_own_versions_and_no_others,
    answers_broadcasts_and_the_row_agree_on_which_version_is_where,
);

/// Where nobody else goes. No whole numbers: JavaScript writes 1.0 as 1.
fn place(writer: u32, turn: u32) -> Value {
    point(f64::from(writer) + 0.5, f64::from(turn) + 0.5)
}

/// Moves a location several times as one user; returns what it was answered.
async fn write(server: &TestServer, id: u64, writer: u32, times: u32) -> Vec<Value> {
    let mut answers = Vec::new();
    for turn in 0..times {
        let body = json!({"id": id, "userId": writer, "geometry": place(writer, turn)});
        answers.push(server.update(&server.api, &body).await);
    }
    answers
}

/// What a room must be sent for these answers, by version.
fn broadcasts(id: u64, answers: impl IntoIterator<Item = Value>) -> Vec<Value> {
    let mut by_version = BTreeMap::new();
    for feature in answers {
        let version = feature["properties"]["version"].as_u64().expect("a version");
        let user = feature["properties"]["updatedBy"].clone();
        let chat =
            json!({"userId": user, "message": feature, "roomName": id.to_string(), "version": version});
        let other = by_version.insert(version, chat);
        assert_eq!(other, None, "two writers were answered version {version}");
    }
    by_version.into_values().collect()
}

async fn writers_of_one_location_are_put_in_one_order_that_everybody_sees(db: Db) {
    let server = TestServer::start(db).await;
    let clients = Clients::start();
    let id = server.create_at(-1.0, -1.0).await;
    let mut subscribers = Vec::new();
    for _ in 0..8 {
        let mut client = clients.connect(&server.gateway).await;
        assert_eq!(client.join(id).await["version"], 1);
        subscribers.push(client);
    }

    // In all less than may wait for a reader, so that also a slow one is sent each.
    let answers = join_all((0..32).map(|writer| write(&server, id, writer, 4))).await;
    for own in &answers {
        let versions: Vec<_> = own.iter().map(|feature| feature["properties"]["version"].as_u64()).collect();
        assert!(versions.is_sorted_by(|a, b| a < b), "one writer's own updates, one after the other");
    }
    let expected = broadcasts(id, answers.into_iter().flatten());
    let versions: Vec<_> = expected.iter().map(|chat| chat["version"].as_u64().expect("a number")).collect();
    assert_eq!(versions, (2..=129).collect::<Vec<_>>());
    for client in &mut subscribers {
        for (seen, expected) in client.follow(id, 1, 129).await.iter().zip(&expected) {
            assert_eq!(seen, expected);
        }
        assert_eq!(client.drain().await, Vec::<Value>::new());
    }
    server.stop().await;
}

async fn each_room_of_many_sees_its_own_versions_and_no_others(db: Db) {
    const UPDATES: u64 = 40;
    // In a process of its own: with its sockets and those of other tests one would be short of files.
    let (server, _log) = Process::serve(db, &[("RUST_LOG", "warn,georoom::server=info")]).await;
    let clients = Clients::start();
    let mut rooms: Vec<(u64, Vec<Client>)> = Vec::new();
    for room in 0..16 {
        let id = server.create_at(f64::from(room), 0.0).await;
        let opts = json!({"transports": ["websocket"]});
        rooms.push((id, (0..50).map(|_| clients.open("4", &server.gateway, opts.clone())).collect()));
    }
    for (id, members) in &mut rooms {
        let join = members.iter_mut().map(async |member| {
            member.connected().await;
            assert_eq!(member.join(*id).await["version"], 1);
        });
        join_all(join).await;
    }

    let writers = (0..64_u32).map(|writer| write(&server, rooms[writer as usize % 16].0, writer, 10));
    let answers = join_all(writers).await;
    for (room, (id, members)) in rooms.iter_mut().enumerate() {
        let own = answers.iter().skip(room).step_by(16).flatten().cloned();
        let expected = broadcasts(*id, own);
        assert_eq!(expected.len() as u64, UPDATES);
        for member in members {
            assert_eq!(member.follow(*id, 1, 1 + UPDATES).await, expected);
            assert_eq!(member.drain().await, Vec::<Value>::new());
        }
    }
    drop(clients);
    server.stop().await;
}

/// A server that updates and then reads the row back, or asks the database for the version afterwards,
/// passes with one writer. With many it answers and sends some updates twice and loses others.
async fn answers_broadcasts_and_the_row_agree_on_which_version_is_where(db: Db) {
    let server = TestServer::start(db).await;
    let clients = Clients::start();
    let id = server.create_at(-1.0, -1.0).await;
    let mut subscriber = clients.connect(&server.gateway).await;
    subscriber.join(id).await;

    let answers = join_all((0..48).map(|writer| write(&server, id, writer, 5))).await.concat();
    let at = |feature: &Value| {
        let version = feature["properties"]["version"].as_u64().expect("a version");
        (version, feature["geometry"].to_string())
    };
    let answered: BTreeMap<_, _> = answers.iter().map(at).collect();
    let sent: Vec<_> = subscriber.follow(id, 1, 241).await.iter().map(|chat| at(&chat["message"])).collect();
    assert_eq!(subscriber.drain().await, Vec::<Value>::new());

    assert_eq!(answered.len(), 240);
    assert_eq!(sent, answered.clone().into_iter().collect::<Vec<_>>());
    let wanted: HashSet<_> =
        (0..48).flat_map(|writer| (0..5).map(move |turn| place(writer, turn).to_string())).collect();
    assert_eq!(sent.iter().map(|(_, geometry)| geometry.clone()).collect::<HashSet<_>>(), wanted);
    let (_, row) = server.get(&format!("/location/{id}")).await;
    assert_eq!(Some(at(&row)), answered.into_iter().next_back());
    server.stop().await;
}
