//! Every client generation over every transport, straight to the gateway and through nginx.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::{
    on_one_database,
    support::{
        Db, TestServer,
        clients::{Client, Clients, VERSIONS},
        exposition::Exposition,
        nginx::Nginx,
        point,
        polling::Polling,
        websocket::{BINARY, Seen, WebSocket, frame},
    },
};

on_one_database!(
    a_member_has_every_update_once_and_in_order_whatever_its_client_transport_and_way_in,
    a_member_misses_nothing_while_its_transport_is_upgraded,
    events_keep_their_order_while_the_transport_is_upgraded,
);

const TRANSPORTS: [&[&str]; 3] = [&["websocket"], &["polling"], &["polling", "websocket"]];

/// Open mode asks for no token; clients send them all the same, and nobody may log them.
const TOKEN: &str = "eyJhbGciOiJub25lIn0.a-token-of-a-user";
const SHARE: &str = "a-share-that-opens-a-location";

/// A way to the server.
struct Door {
    name: &'static str,
    api: String,
    gateway: String,
    path: &'static str,
}

fn doors(server: &TestServer, nginx: &Nginx) -> [Door; 2] {
    let direct =
        Door { name: "direct", api: server.api.clone(), gateway: server.gateway.clone(), path: "/socket.io" };
    let through_nginx =
        Door { name: "nginx", api: format!("{}/api", nginx.url), gateway: nginx.url.clone(), path: "/chat" };
    [direct, through_nginx]
}

impl Door {
    fn open(&self, clients: &Clients, version: &str, transports: &[&str]) -> Client {
        let opts = json!({
            "path": self.path,
            "transports": transports,
            "query": {"token": TOKEN, "share": SHARE},
            "auth": {"token": TOKEN},
        });
        clients.open(version, &self.gateway, opts)
    }
}

async fn a_member_has_every_update_once_and_in_order_whatever_its_client_transport_and_way_in(db: Db) {
    let server = TestServer::start(db).await;
    let nginx = Nginx::start(&server).await;
    let clients = Clients::start();
    for door in doors(&server, &nginx) {
        let (id, elsewhere) = (server.create_at(13.4, 52.5).await, server.create_at(0.0, 0.0).await);
        let room = id.to_string();
        let mut combinations: Vec<_> = VERSIONS
            .iter()
            .flat_map(|version| TRANSPORTS.map(|transports| (*version, transports)))
            .map(|(version, transports)| {
                let name = format!("{version} {transports:?} {}", door.name);
                let open = || door.open(&clients, version, transports);
                (name, transports, open(), open())
            })
            .collect();
        assert_eq!(combinations.len(), 9);

        let created = server.get(&format!("/location/{id}")).await.1;
        for (name, _, member, stranger) in &mut combinations {
            member.connected().await;
            stranger.connected().await;
            stranger.join(elsewhere).await;
            let snapshot = member.join(id).await;
            assert_eq!(
                snapshot,
                json!({"userId": 1, "message": created, "roomName": room, "version": 1}),
                "{name}"
            );
        }

        let mut updates = Vec::new();
        for version in 2..62 {
            let geometry = point(13.4, 52.5 + f64::from(version) / 1000.0);
            let body = json!({"id": id, "geometry": geometry, "userId": version});
            let moved = server.update(&door.api, &body).await;
            updates.push(json!({"userId": version, "message": moved, "roomName": room, "version": version}));
        }
        for (name, transports, member, stranger) in &mut combinations {
            assert_eq!(member.follow(id, 1, 61).await, updates, "{name}");
            match transports {
                [only] => {
                    assert_eq!(member.transport().await, *only, "{name}");
                    assert_eq!(member.upgrades, Vec::<Value>::new(), "{name}");
                }
                _ => {
                    assert_eq!(member.upgraded().await, "websocket", "{name}");
                    assert_eq!(member.transport().await, "websocket", "{name}");
                }
            }
            assert_eq!(stranger.drain().await, Vec::<Value>::new(), "{name}");
            member.leave(id).await;
            let refused = member.ask("chat", json!({"roomName": room, "message": "still here?"})).await;
            assert_eq!(refused["code"], "not_in_room", "{name}");
        }
        server.update(&door.api, &json!({"id": id, "geometry": point(0.0, 0.0)})).await;
        for (name, _, member, _) in &mut combinations {
            assert_eq!(member.drain().await, Vec::<Value>::new(), "{name}");
        }
    }

    let logs = nginx.logs();
    assert!(logs.contains("GET /chat/ ") && logs.contains("PUT /api/location "), "{logs}");
    assert!(!logs.contains(TOKEN) && !logs.contains(SHARE), "{logs}");
    server.stop().await;
}

async fn a_member_misses_nothing_while_its_transport_is_upgraded(db: Db) {
    let server = TestServer::start(db).await;
    let nginx = Nginx::start(&server).await;
    let clients = Clients::start();
    let id = server.create_at(0.0, 0.0).await;
    let done = AtomicBool::new(false);
    let write = async |writer: u32| {
        while !done.load(Ordering::Relaxed) {
            server.update(&server.api, &json!({"id": id, "geometry": point(f64::from(writer), 0.0)})).await;
        }
    };
    let watch = async {
        let mut members = Vec::new();
        for door in doors(&server, &nginx) {
            for version in VERSIONS {
                // One after the other, so that each meets the stream at another moment.
                for _ in 0..5 {
                    let mut member = door.open(&clients, version, &["polling", "websocket"]);
                    member.connected().await;
                    let first = member.join(id).await["version"].as_u64().expect("a version");
                    assert_eq!(member.upgraded().await, "websocket", "{version} {}", door.name);
                    members.push((member, first));
                }
            }
        }
        done.store(true, Ordering::Relaxed);
        members
    };
    let (members, ..) = tokio::join!(watch, write(1), write(2));

    let head = server.move_to(id, 3.0, 0.0).await["properties"]["version"].as_u64().expect("a version");
    let mut during = 0;
    for (mut member, first) in members {
        during += head - first;
        member.follow(id, first, head).await;
        assert_eq!(member.drain().await, Vec::<Value>::new());
    }
    assert!(during > 30, "only {during} updates came while clients connected");
    server.stop().await;
}

async fn events_keep_their_order_while_the_transport_is_upgraded(db: Db) {
    let server = TestServer::start(db).await;
    let nginx = Nginx::start(&server).await;
    let clients = Clients::start();
    let id = server.create_at(0.5, 0.5).await;
    for door in doors(&server, &nginx) {
        for version in VERSIONS {
            for _ in 0..5 {
                let mut client = door.open(&clients, version, &["polling", "websocket"]);
                client.connected().await;
                client.emit("join_room", json!({"locationId": id}));
                let (mut sent, mut relayed, mut last) = (0, 0, None);
                while last.is_none_or(|last| relayed < last) {
                    // Some are always under way.
                    while last.is_none() && sent < relayed + 50 {
                        client.emit("chat", json!({"roomName": id.to_string(), "message": sent}));
                        sent += 1;
                    }
                    let chat = client.event("chat").await;
                    if chat["version"] == 1 && relayed == 0 {
                        continue;
                    }
                    assert_eq!(chat["message"], relayed, "{version} {}", door.name);
                    relayed += 1;
                    if last.is_none() && !client.upgrades.is_empty() {
                        last = Some(sent);
                    }
                }
                assert_eq!(client.transport().await, "websocket");
                client.leave(id).await;
                client.disconnect();
            }
        }
    }
    server.stop().await;
}

/// Node's server takes it; here every event carries JSON.
#[tokio::test(flavor = "multi_thread")]
async fn binary_data_is_refused_and_ends_no_connection() {
    let server = TestServer::start(Db::Sqlite).await;
    let clients = Clients::start();
    let id = server.create_at(0.5, 0.5).await;
    let room = id.to_string();
    let payloads = [
        ("chat", json!({"message": {"$bytes": 3}, "roomName": room})),
        ("chat", json!({"message": [1, {"deep": {"$bytes": 0}}, {"$bytes": 5}], "roomName": room})),
        // With base64 around it, as polling has it, still no message that is too large.
        ("chat", json!({"message": {"$bytes": 90_000}, "roomName": room})),
        ("chat", json!({"message": "text", "roomName": room, "more": {"$bytes": 3}})),
        ("join_room", json!({"$bytes": 3})),
        ("presence", json!({"locationId": {"$bytes": 3}})),
    ];
    for version in VERSIONS {
        for transports in TRANSPORTS {
            let mut client = clients.open(version, &server.gateway, json!({"transports": transports}));
            client.connected().await;
            client.join(id).await;
            for (event, payload) in &payloads {
                let refusal = client.ask(event, payload.clone()).await;
                assert_eq!(refusal["code"], "invalid_payload", "{version} {transports:?} {payload}");
                client.emit(event, payload.clone());
                assert_eq!(client.event("exception").await, refusal);
            }
            let message = json!({"message": "still here", "roomName": room});
            let (ack, seen) = client.ask_seeing("chat", message).await;
            assert_eq!((&ack["message"], seen.len()), (&json!("still here"), 1), "{version} {transports:?}");
            client.disconnect();
        }
    }
    server.stop().await;
}

/// The library keeps attachments until their event is whole.
#[tokio::test(flavor = "multi_thread")]
async fn attachments_that_wait_for_others_are_counted() {
    const BYTES: usize = 50_000;
    const WAITING: &str = "georoom_sockets_waiting_bytes";
    let server = TestServer::start(Db::Sqlite).await;
    // It is kept as long as the first of them.
    let header = format!(
        r#"452-["chat",{{"message":[{{"_placeholder":true,"num":0}},{{"_placeholder":true,"num":1}}],"x":"{}"}}]"#,
        "x".repeat(BYTES / 2),
    );
    let mut socket = WebSocket::connect(&server.gateway).await;
    let mut poller = Polling::connect(&server.gateway).await;
    socket.send(&header).await;
    poller.send(&header).await;
    for is_last in [false, true] {
        socket.raw(&frame(BINARY, true, &[1; BYTES])).await;
        poller.send(&format!("b{}", "AAAA".repeat(BYTES / 4))).await;
        if !is_last {
            Exposition::until(&server, WAITING, (2 * (header.len() + BYTES) + 1) as f64).await;
        }
    }
    assert!(matches!(socket.next().await, Seen::Exception(error) if error["code"] == "invalid_payload"));
    assert!(poller.next().await.contains("invalid_payload"));
    let next = r#"42["leave_room",{"locationId":1}]"#;
    socket.send(next).await;
    poller.send(next).await;
    Exposition::until(&server, WAITING, 0.0).await;
    server.stop().await;
}
