//! Crowds that come and go: nobody is flooded with news of them, and what they cost is printed.
//!
//! `GEOROOM_CROWD` says how many users; `make soak` asks for more than `make test`.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, future::join_all, stream};
use serde_json::{Value, json};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::support::{
    Db, QUIET, TestServer, UNLIMITED,
    clients::PATIENCE,
    exposition::Exposition,
    machine,
    process::Process,
    setting,
    tokens::{KEY, Pass, mint},
    websocket::WebSocket,
};

/// How many sockets each user of a fleet has.
const SOCKETS: u64 = 5;
/// The first of the list of all who are connected.
const ADMIN: u64 = 1;
/// Users of the longest list.
const MAX_ROWS: u64 = 1_000;
/// Users who are named in a room.
const NAMED: usize = 50;

fn users() -> u64 {
    setting("GEOROOM_CROWD", 100) as u64
}

async fn serve() -> TestServer {
    Process::serve(Db::Sqlite, &[KEY, UNLIMITED, QUIET]).await.0
}

async fn connect(server: &TestServer, token: &str) -> WebSocket {
    let auth = json!({"token": token}).to_string();
    WebSocket::connect_with(&server.gateway, "/socket.io/", false, &auth).await
}

/// Waits for the list of all who are connected to say this: how many they are, and their sockets as far as they
/// are listed.
async fn lists(server: &TestServer, total: u64, sockets: u64) {
    let admin = Pass::admin(ADMIN);
    let mut last = Value::Null;
    let said = async {
        loop {
            last = admin.get(server, "/user/active").await.1;
            let rows = last["users"].as_array().expect("users");
            let listed: u64 = rows.iter().map(|row| row["sockets"].as_u64().expect("sockets")).sum();
            if last["total"] == total && listed == sockets {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, said).await.unwrap_or_else(|_| panic!("not {total} with {sockets}"));
}

/// What the process has used: seconds of processor time, KiB of memory.
async fn used(server: &TestServer) -> (f64, f64) {
    let counted = Exposition::scrape(server).await;
    (counted.value("process_cpu_seconds_total"), counted.value("process_resident_memory_bytes") / 1024.0)
}

/// Reads on and answers pings until its end; says when which list came.
fn listen(mut client: WebSocket) -> JoinHandle<Vec<Instant>> {
    tokio::spawn(async move {
        let mut lists = Vec::new();
        while let Some(packet) = client.any().await {
            if packet.starts_with(r#"42["user_list""#) {
                lists.push(Instant::now());
            }
        }
        lists
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_that_comes_and_goes_is_told_of_at_a_pace() {
    let _share = machine::half().await;
    let (users, server) = (users(), serve().await);
    let seconds = users as f64 / 1_000.0 * 15.0;
    let admin = listen(connect(&server, &mint(ADMIN, None, true)).await);
    let began = Instant::now();
    let before = used(&server).await;
    // Users who come one after the other, each with all sockets.
    let coming = (0..users * SOCKETS).map(|n| {
        let (server, user) = (&server, ADMIN + 1 + n / SOCKETS);
        async move {
            let due = Duration::from_secs_f64(seconds * n as f64 / (users * SOCKETS) as f64);
            sleep(due.saturating_sub(began.elapsed())).await;
            connect(server, &mint(user, Some(&format!("User {user}")), false)).await
        }
    });
    let sockets: Vec<_> = stream::iter(coming).buffered(64).collect().await;
    lists(&server, 1 + users, 1 + SOCKETS * users.min(MAX_ROWS - 1)).await;
    let here = used(&server).await;
    let began_to_go = Instant::now();
    for (n, socket) in sockets.into_iter().enumerate() {
        let due = Duration::from_secs_f64(seconds * n as f64 / (users * SOCKETS) as f64);
        sleep(due.saturating_sub(began_to_go.elapsed())).await;
        drop(socket);
    }
    lists(&server, 1 + users, 1).await;
    let gone = used(&server).await;
    let elapsed = began.elapsed();
    server.stop().await;
    let lists = admin.await.expect("no panic");

    let count = (users * SOCKETS) as f64;
    println!(
        "{users} users with {SOCKETS} sockets each came and went in {elapsed:?}: {:.0} µs CPU a socket that comes, {:.0} \
         one that goes; {:.1} KiB a socket; {} lists to an admin",
        (here.0 - before.0) / count * 1e6,
        (gone.0 - here.0) / count * 1e6,
        (here.1 - before.1) / count,
        lists.len(),
    );
    // At most one a second, and not the same number as there were changes.
    assert!(!lists.is_empty() && lists.len() as u64 <= elapsed.as_secs() + 2, "{}", lists.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_that_fills_at_once_is_told_of_in_few_words() {
    let _share = machine::half().await;
    let (users, server) = (users() as usize, serve().await);
    let owner = Pass::user(1);
    let room = owner.create(&server).await;
    let all = 2..2 + users as u64;
    stream::iter(all.clone())
        .for_each_concurrent(16, |user| owner.grant(&server, room, user, "viewer"))
        .await;
    let tokens = all.map(|user| mint(user, Some(&format!("User {user}")), false)).collect::<Vec<_>>();
    let connecting = tokens.iter().map(|token| connect(&server, token));
    let mut sockets: Vec<_> = stream::iter(connecting).buffered(64).collect().await;

    let before = used(&server).await;
    let began = Instant::now();
    let told = join_all(sockets.iter_mut().map(async |socket| {
        socket.emit("join_room", &json!({"locationId": room})).await;
        let (mut named, mut numbers, mut bytes) = (0, 0_u64, 0);
        loop {
            let packet = socket.any().await.expect("an open socket");
            let Some(body) = packet.strip_prefix(r#"42["presence","#) else { continue };
            bytes += packet.len();
            let body: Value = serde_json::from_str(body.trim_end_matches(']')).expect("JSON");
            match body["state"].is_null() {
                true => numbers += 1,
                false => named += 1,
            }
            if body["sockets"] == users {
                return (named, numbers, bytes);
            }
        }
    }))
    .await;
    let elapsed = began.elapsed();
    let after = used(&server).await;
    println!(
        "{users} users entered one room and knew it after {elapsed:?}: {:.0} µs CPU and {:.2} KiB each; at most {} names, \
         {} numbers, {} bytes to one",
        (after.0 - before.0) / users as f64 * 1e6,
        (after.1 - before.1) / users as f64,
        told.iter().map(|told| told.0).max().unwrap_or_default(),
        told.iter().map(|told| told.1).max().unwrap_or_default(),
        told.iter().map(|told| told.2).max().unwrap_or_default(),
    );
    for (named, numbers, _) in told {
        assert!(named <= NAMED, "{named} names");
        assert!(numbers <= elapsed.as_secs() + 2, "{numbers} numbers in {elapsed:?}");
    }
    drop(sockets);
    server.stop().await;
}
