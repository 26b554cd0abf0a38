//! Who is here: the list of all for admins, and who is in a room for its members.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{process::Command, time::timeout};

use crate::{
    on_both_databases,
    support::{
        Db, TestDatabase, TestServer,
        clients::{Client, Clients, PATIENCE},
        polling::Polling,
        process::Process,
        proxy::Proxy,
        tokens::{KEY, LOCKED, Pass, code, mint, mint_for},
        websocket::{Seen, WebSocket},
    },
};

on_both_databases!(a_user_is_called_what_a_token_said_at_either_door);

/// How long a list lags behind at most, but for what a busy machine adds now and then.
const SOON: Duration = Duration::from_secs(2);
/// Who polls and is killed is missed at the next heartbeat.
const HEARTBEAT: [(&str, &str); 2] = [("PING_INTERVAL", "300ms"), ("PING_TIMEOUT", "1s")];

const WEBSOCKET: (&str, &str) = ("4", "websocket");
const POLLING: (&str, &str) = ("4", "polling");
const OLD: (&str, &str) = ("2", "websocket");

fn named(id: u64, name: &str) -> Pass {
    Pass::Token(mint(id, Some(name), false))
}

/// Connects, and sees what comes by itself from the start; returns also the socket's id.
async fn connect(pass: &Pass, clients: &Clients, kind: (&str, &str), url: &str) -> (Client, String) {
    let mut client = pass.open(clients, kind, url).hearing_all();
    let id = client.connected().await;
    (client, id)
}

/// The next event of this name; others are passed over.
async fn next(client: &mut Client, event: &str) -> Value {
    loop {
        let saw = client.next().await;
        if saw["kind"] == "event" && saw["event"] == event {
            return saw["args"][0].clone();
        }
    }
}

/// Sockets of users.
fn sockets(list: &Value) -> BTreeMap<u64, u64> {
    let rows = list["users"].as_array().expect("users");
    assert_eq!(list["total"], rows.len(), "{list}");
    rows.iter().map(|row| (row["userId"].as_u64().unwrap(), row["sockets"].as_u64().unwrap())).collect()
}

/// An admin, and how long its lists lagged behind.
struct Admin {
    pass: Pass,
    client: Client,
    lags: Vec<Duration>,
}

impl Admin {
    async fn connect(id: u64, clients: &Clients, url: &str) -> (Self, String) {
        let pass = Pass::admin(id);
        let (client, own_id) = connect(&pass, clients, WEBSOCKET, url).await;
        (Self { pass, client, lags: Vec::new() }, own_id)
    }

    /// Waits until both lists say this; returns the one that was asked for.
    async fn lists(&mut self, server: &TestServer, expected: &[(u64, u64)]) -> Value {
        let expected = expected.iter().copied().collect();
        let (before, mut last) = (Instant::now(), Value::Null);
        let both = async {
            while last.is_null() || sockets(&last) != expected {
                last = next(&mut self.client, "user_list").await;
            }
            loop {
                let (status, list) = self.pass.get(server, "/user/active").await;
                assert_eq!(status, StatusCode::OK, "{list}");
                if sockets(&list) == expected {
                    return list;
                }
            }
        };
        let said = timeout(PATIENCE, both).await;
        self.lags.push(before.elapsed());
        said.unwrap_or_else(|_| panic!("not {expected:?}: {last}"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lists_of_admins_are_right_at_every_step() {
    let settings = [KEY, HEARTBEAT[0], HEARTBEAT[1]];
    let server = TestServer::start_with(Db::Sqlite, &settings).await;
    let (clients, doomed) = (Clients::start(), Clients::start());
    let url = &server.gateway;
    let (mut admin, admin_id) = Admin::connect(9, &clients, url).await;
    let registered = admin.client.event("registered").await;
    assert_eq!(registered, json!({"userId": 9, "socketId": admin_id}));
    admin.lists(&server, &[(9, 1)]).await;

    let (ada, bob) = (named(1, "Ada"), named(2, "Bob"));
    let (ada_on_websocket, id) = &mut connect(&ada, &clients, WEBSOCKET, url).await;
    let registered = ada_on_websocket.event("registered").await;
    assert_eq!(registered, json!({"userId": 1, "userName": "Ada", "socketId": id}));
    let (ada_polling, _) = connect(&ada, &clients, POLLING, url).await;
    connect(&bob, &doomed, POLLING, url).await;
    connect(&bob, &doomed, WEBSOCKET, url).await;
    let (mut cid, cid_id) = connect(&Pass::user(3), &clients, OLD, url).await;
    assert_eq!(cid.event("registered").await["socketId"], *cid_id);
    let all = admin.lists(&server, &[(9, 1), (1, 2), (2, 2), (3, 1)]).await;
    assert!(!all.to_string().contains(&cid_id) && !all.to_string().contains(id.as_str()), "{all}");
    let mut names = all["users"].as_array().unwrap().iter();
    assert!(names.any(|row| row["userId"] == 1 && row["userName"] == "Ada"), "{all}");
    assert!(all["users"][0]["lastSeen"].as_str().unwrap().ends_with('Z'), "{all}");

    ada_polling.disconnect();
    admin.lists(&server, &[(9, 1), (1, 1), (2, 2), (3, 1)]).await;
    doomed.signal("KILL").await;
    admin.lists(&server, &[(9, 1), (1, 1), (2, 0), (3, 1)]).await;
    ada_on_websocket.kill();
    admin.lists(&server, &[(9, 1), (1, 0), (2, 0), (3, 1)]).await;
    let (back, _) = connect(&ada, &clients, OLD, url).await;
    admin.lists(&server, &[(9, 1), (1, 1), (2, 0), (3, 1)]).await;
    admin.lags.sort_unstable();
    let lags = &admin.lags;
    println!("lists lagged behind by {lags:?}, the heartbeat of who was killed included");
    assert!(lags[lags.len() / 2] < SOON, "{lags:?}");

    // Others learn nothing of it.
    assert_eq!(cid.drain().await, Vec::<Value>::new());
    let (status, refused) = ada.get(&server, "/user/active").await;
    assert_eq!((status, &refused["code"]), (StatusCode::FORBIDDEN, &json!("forbidden")));
    drop(back);

    // Nobody is there who was before.
    let server = TestServer::start_on(server.halt().await, LOCKED).await;
    let (mut admin, _) = Admin::connect(9, &clients, &server.gateway).await;
    admin.lists(&server, &[(9, 1)]).await;
    server.stop().await;
}

async fn a_user_is_called_what_a_token_said_at_either_door(db: Db) {
    let server = TestServer::start_with(db, LOCKED).await;
    let clients = Clients::start();
    named(3, "Cid").must(&server, Method::GET, "/location", None).await;
    let server = TestServer::start_on(server.halt().await, LOCKED).await;
    named(4, "Dot").must(&server, Method::GET, "/location", None).await;
    let (mut admin, _) = Admin::connect(9, &clients, &server.gateway).await;
    for user in 3..6 {
        Pass::user(user).connect(&clients, &server.gateway).await;
    }
    let names = |list: &Value| {
        let rows = list["users"].as_array().expect("users").clone();
        rows.into_iter().map(|row| row["userName"].clone()).collect::<Vec<_>>()
    };
    let mut list = Value::Null;
    while list.is_null() || names(&list) != [json!("Cid"), json!("Dot"), Value::Null, Value::Null] {
        list = next(&mut admin.client, "user_list").await;
    }

    // Also of who is connected already.
    named(4, "Dot L.").must(&server, Method::GET, "/location", None).await;
    let (mut eve, _) = connect(&Pass::user(5), &clients, WEBSOCKET, &server.gateway).await;
    let Pass::Token(token) = named(5, "Eve") else { unreachable!() };
    eve.ask_seeing("authenticate", json!({"token": token})).await;
    let expected = [json!("Cid"), json!("Dot L."), json!("Eve"), Value::Null];
    while names(&list) != expected {
        list = next(&mut admin.client, "user_list").await;
    }
    assert_eq!(names(&admin.pass.get(&server, "/user/active").await.1), expected);
    let id = Pass::user(5).create(&server).await;
    eve.ask_seeing("join_room", json!({"locationId": id})).await;
    let there = eve.ask_seeing("presence", json!({"locationId": id})).await.0;
    assert_eq!(there["users"], json!([{"userId": 5, "userName": "Eve"}]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_could_not_be_looked_up_is_looked_up_later() {
    let server = TestServer::start_with(Db::MySql, LOCKED).await;
    named(3, "Cid").must(&server, Method::GET, "/location", None).await;
    let database = server.halt().await;
    let proxy = Proxy::start(&database, None).await;
    let settings =
        [("DATABASE_URL", proxy.url.as_str()), KEY, ("RUST_LOG", "info,georoom::gateway::people=debug")];
    let (server, mut log) = Process::serve_on(database, &settings).await;
    while server.get("/readyz").await.0 != StatusCode::OK {}
    let clients = Clients::start();
    let addr = proxy.cut().await;
    let _cid = Pass::user(3).connect(&clients, &server.gateway).await;
    log.find("names of users could not be read", &[]).await;
    let active = async || Pass::admin(9).get(&server, "/user/active").await.1["users"][0].clone();
    let row = active().await;
    assert_eq!((&row["userId"], &row["userName"]), (&json!(3), &Value::Null), "{row}");
    let proxy = Proxy::start(&server.database, Some(addr)).await;
    let named = async { while active().await["userName"] != "Cid" {} };
    timeout(PATIENCE, named).await.expect("a name");
    server.stop().await;
    proxy.cut().await;
}

/// Else all that a socket is sent would wait for each list to be read.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_sent_is_not_too_large() {
    const MANY: u64 = 70;
    let server = TestServer::start(Db::Sqlite).await;
    let clients = Clients::start();
    let mut all = Vec::new();
    for user in 1..=MANY {
        let client = Pass::Nothing.connect(&clients, &server.gateway).await;
        client.emit("join", json!({"userId": user, "userName": "é".repeat(255)}));
        all.push(client);
    }
    let (mut witness, _) = connect(&Pass::Nothing, &clients, WEBSOCKET, &server.gateway).await;
    let mut list = Value::Null;
    while list["total"] != MANY {
        list = next(&mut witness, "user_list").await;
    }
    let (bytes, rows) = (list.to_string().len(), list["users"].as_array().unwrap().len() as u64);
    assert!((30_000..33_000).contains(&bytes) && rows < MANY, "{rows} rows, {bytes} bytes");
    let all_of_them = server.get("/user/active").await.1;
    assert_eq!(all_of_them["users"].as_array().unwrap().len() as u64, MANY);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_admins_may_ask_who_is_active() {
    let server = TestServer::start_with(Db::Sqlite, LOCKED).await;
    let owner = Pass::user(1);
    let id = owner.create(&server).await;
    let guest = owner.guest(&server, id).await;
    for (pass, status) in [
        (Pass::Nothing, StatusCode::UNAUTHORIZED),
        (owner, StatusCode::FORBIDDEN),
        (guest, StatusCode::FORBIDDEN),
        (Pass::admin(2), StatusCode::OK),
    ] {
        let (answered, body) = pass.get(&server, "/user/active").await;
        assert_eq!(answered, status, "{pass:?}: {body}");
    }
    let of = async |method, path| Pass::Nothing.send(&server, method, path, None).await;
    assert_eq!(of(Method::GET, "/user").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(of(Method::GET, "/user/active/1").await.status(), StatusCode::NOT_FOUND);
    let other = of(Method::POST, "/user/active").await;
    assert_eq!(other.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(other.headers()["Allow"], "GET, HEAD, OPTIONS");
    let (status, body) = Pass::admin(2).get(&server, "/user/active?page=1").await;
    assert_eq!((status, &body["code"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("invalid_parameter")));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_room_learn_who_comes_and_goes_and_nobody_else() {
    let server = TestServer::start_with(Db::Sqlite, LOCKED).await;
    let (clients, url) = (Clients::start(), &server.gateway);
    let ada = named(1, "Ada");
    let id = ada.create(&server).await;
    let room = id.to_string();
    for user in 2..5 {
        ada.grant(&server, id, user, "viewer").await;
    }
    let guest = ada.guest(&server, id).await;
    let (bob, cid, dot) = (named(2, "Bob"), named(3, "Cid"), named(4, "Dot"));
    let told = |user: u64, name: &str, state: &str, sockets: u64| json!({"roomName": room, "userId": user, "userName": name, "state": state, "sockets": sockets});
    let mut ids = Vec::new();

    let (mut witness, _) = connect(&ada, &clients, WEBSOCKET, url).await;
    witness.event("registered").await;
    witness.join(id).await;
    assert_eq!(witness.event("presence").await, told(1, "Ada", "join", 1));
    let join = async |pass: &Pass, kind, ids: &mut Vec<String>| {
        let (mut client, own_id) = connect(pass, &clients, kind, url).await;
        ids.push(own_id);
        client.emit("join_room", json!({"locationId": id}));
        next(&mut client, "chat").await;
        client
    };
    let bob_on_websocket = join(&bob, WEBSOCKET, &mut ids).await;
    assert_eq!(witness.event("presence").await, told(2, "Bob", "join", 2));
    // Neither another socket of his nor a guest is told, and joining again changes nothing.
    let mut bob_polling = join(&bob, POLLING, &mut ids).await;
    let mut stranger = join(&guest, WEBSOCKET, &mut ids).await;
    bob_polling.emit("join_room", json!({"locationId": id}));
    next(&mut bob_polling, "chat").await;
    let cid_on_old = join(&cid, OLD, &mut ids).await;
    assert_eq!(witness.event("presence").await, told(3, "Cid", "join", 5));
    let everybody = json!({"roomName": room, "sockets": 5, "users": [
        {"userId": 1, "userName": "Ada"}, {"userId": 2, "userName": "Bob"}, {"userId": 3, "userName": "Cid"},
    ]});
    assert_eq!(witness.ask("presence", json!({"locationId": id})).await, everybody);
    // A viewer may ask from outside, strangers and guests may not.
    let (mut dot_outside, _) = connect(&dot, &clients, WEBSOCKET, url).await;
    dot_outside.event("registered").await;
    assert_eq!(dot_outside.ask("presence", json!({"locationId": room})).await, everybody);
    let (mut nobody, _) = connect(&Pass::user(7), &clients, WEBSOCKET, url).await;
    nobody.event("registered").await;
    assert_eq!(code(&nobody.ask("presence", json!({"locationId": id})).await), "not_found");
    assert_eq!(code(&nobody.ask("presence", json!({})).await), "invalid_payload");
    assert_eq!(code(&stranger.ask("presence", json!({"locationId": id})).await), "forbidden");

    // Whoever says so is gone at once.
    let before = Instant::now();
    cid_on_old.emit("leave_room", json!({"locationId": id}));
    assert_eq!(witness.event("presence").await, told(3, "Cid", "leave", 4));
    assert!(before.elapsed() < Duration::from_secs(3), "{:?}: too slow to tell", before.elapsed());
    cid_on_old.emit("join_room", json!({"locationId": id}));
    assert_eq!(witness.event("presence").await, told(3, "Cid", "join", 5));
    cid_on_old.disconnect();
    assert_eq!(witness.event("presence").await, told(3, "Cid", "leave", 4));
    ada.must(&server, Method::DELETE, &format!("/location/{id}/members/3"), None).await;

    // Who loses the connection is not, and was never away if back in time: nothing is told of Bob, who is back,
    // before Dot, who was lost after him, is missed.
    bob_polling.disconnect();
    while witness.ask("presence", json!({"locationId": id})).await["sockets"] != 3 {}
    bob_on_websocket.kill();
    let bob_is_back = join(&bob, POLLING, &mut ids).await;
    let dot_inside = join(&dot, WEBSOCKET, &mut ids).await;
    assert_eq!(witness.event("presence").await, told(4, "Dot", "join", 4));
    dot_inside.kill();
    assert_eq!(witness.event("presence").await, told(4, "Dot", "leave", 3));

    // Whose right ends is gone as well.
    ada.must(&server, Method::DELETE, &format!("/location/{id}/members/2"), None).await;
    assert_eq!(witness.event("presence").await, told(2, "Bob", "leave", 2));
    drop(bob_is_back);
    assert_eq!(stranger.drain().await, Vec::<Value>::new());
    assert_eq!(dot_outside.drain().await, Vec::<Value>::new());
    let left = witness.ask("presence", json!({"locationId": id})).await;
    assert_eq!(left, json!({"roomName": room, "users": [{"userId": 1, "userName": "Ada"}], "sockets": 2}));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_room_is_told_a_number_once_a_second() {
    const MANY: u64 = 60;
    let server = TestServer::start_with(Db::Sqlite, LOCKED).await;
    let clients = Clients::start();
    let admin = Pass::admin(1_000);
    let id = admin.create(&server).await;
    let (mut witness, _) = connect(&admin, &clients, WEBSOCKET, &server.gateway).await;
    witness.emit("join_room", json!({"locationId": id}));
    next(&mut witness, "presence").await;
    let mut all = Vec::new();
    let (mut numbers, mut names) = (Vec::new(), 0);
    for user in 1..=MANY {
        let client = Pass::Token(mint(user, None, true)).connect(&clients, &server.gateway).await;
        client.emit("join_room", json!({"locationId": id}));
        all.push(client);
    }
    loop {
        let told = next(&mut witness, "presence").await;
        if told["userId"].is_null() {
            assert_eq!(told, json!({"roomName": id.to_string(), "sockets": told["sockets"]}));
            numbers.push(Instant::now());
            if told["sockets"] == MANY + 1 {
                break;
            }
        } else {
            names += 1;
        }
    }
    assert!(names < 50, "{names}");
    // Some may come late, but not more than were told.
    let seconds = (numbers[numbers.len() - 1] - numbers[0]).as_secs();
    assert!(numbers.len() as u64 <= seconds + 2, "{} in {seconds} s", numbers.len());
    // Down to 50 those who go are named again.
    all.drain(..15).for_each(|client| client.disconnect());
    while next(&mut witness, "presence").await["state"] != "leave" {}
    let list = witness.ask_seeing("presence", json!({"locationId": id})).await.0;
    assert_eq!(list["sockets"], MANY + 1 - 15);
    assert_eq!(list["users"].as_array().unwrap().len() as u64, MANY + 1 - 15);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_open_mode_one_is_who_one_says() {
    let server = TestServer::start(Db::Sqlite).await;
    let clients = Clients::start();
    let id = server.create_at(0.5, 0.5).await;
    let anybody = Pass::Nothing;
    let (mut witness, own_id) = connect(&anybody, &clients, WEBSOCKET, &server.gateway).await;
    witness.join(id).await;
    let told = witness.event("presence").await;
    assert_eq!(told, json!({"roomName": id.to_string(), "userId": 1, "state": "join", "sockets": 1}));
    let said = json!({"userId": 7, "userName": " Ada\u{7} "});
    let ack = witness.emit_for_ack("join", said);
    assert_eq!(witness.ack(ack).await, json!({"userId": 7, "socketId": own_id}));
    let registered = next(&mut witness, "registered").await;
    assert_eq!(registered, json!({"userId": 7, "userName": "Ada", "socketId": own_id}));
    let mut list = next(&mut witness, "user_list").await;
    while list["users"][0]["userName"] != "Ada" {
        list = next(&mut witness, "user_list").await;
    }
    assert_eq!(sockets(&list), BTreeMap::from([(7, 1)]));
    let (status, list) = server.get("/user/active").await;
    assert_eq!((status, sockets(&list)), (StatusCode::OK, BTreeMap::from([(7, 1)])));
    let there = witness.ask_seeing("presence", json!({"locationId": id})).await.0;
    assert_eq!(there["users"], json!([{"userId": 7, "userName": "Ada"}]));
    let long = json!({"userId": 7, "userName": "é".repeat(256)});
    assert_eq!(code(&witness.ask_seeing("join", long).await.0), "invalid_payload");
    assert_eq!(code(&witness.ask_seeing("presence", json!({"locationId": id + 1})).await.0), "not_found");
    // Whoever has not said who they are is told all the same.
    let (mut other, _) = connect(&anybody, &clients, POLLING, &server.gateway).await;
    assert_eq!(sockets(&next(&mut other, "user_list").await), BTreeMap::from([(7, 1)]));
    server.stop().await;
}

/// What the command in `docs/operations.md` that begins like this finds in these lines of a log.
async fn documented(begin: &str, log: &[Value]) -> Vec<Value> {
    let file = std::env::temp_dir().join(format!("georoom_log_{}", std::process::id()));
    let lines: String = log.iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(&file, lines).expect("a file");
    let operations = include_str!("../../docs/operations.md");
    let (_, command) = operations.split_once(&format!("```sh\n{begin}")).expect("a command");
    let (command, _) = command.split_once("```").expect("its end");
    let command = format!("{begin}{command}").replace("georoom.log", file.to_str().expect("UTF-8"));
    // Without it `jq` is that of the machine.
    let jq = std::env::var("TEST_JQ").unwrap_or_else(|_| "jq".to_owned());
    let command = command.replace("jq -cs", &format!("{jq} -cs"));
    let found = Command::new("sh").args(["-c", &command]).output().await.expect("sh");
    std::fs::remove_file(&file).expect("the test's own file");
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    let found = String::from_utf8(found.stdout).expect("UTF-8");
    found.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_query_of_the_log_says_what_became_of_a_users_phone() {
    let settings = [KEY, HEARTBEAT[0], HEARTBEAT[1]];
    let (clients, phone) = (Clients::start(), Clients::start());
    let owner = Pass::user(7);
    let database = TestDatabase::create(Db::Sqlite).await;
    // Its sockets are gone without a line.
    let mut former =
        Process::start(&[&[("DATABASE_URL", database.url.as_str())], &settings[..]].concat()).await;
    let _lost = connect(&owner, &clients, WEBSOCKET, &former.gateway).await;
    former.log.find("connect", &[("user", "7")]).await;
    let mut lines = std::mem::take(&mut former.log.read);
    former.kill().await;
    let (server, mut log) = Process::serve_on(database, &settings).await;
    let rooms = [owner.create(&server).await, owner.create(&server).await, owner.create(&server).await];
    let mut map = Pass::admin(17).connect(&clients, &server.gateway).await;
    map.join(rooms[0]).await;
    let (mut on_the_road, id) = connect(&owner, &phone, WEBSOCKET, &server.gateway).await;
    on_the_road.event("registered").await;
    for room in rooms {
        on_the_road.emit("join_room", json!({"locationId": room}));
        next(&mut on_the_road, "chat").await;
    }
    on_the_road.ask_seeing("leave_room", json!({"locationId": rooms[1]})).await;
    phone.signal("STOP").await;
    log.find("disconnect", &[("user", "7")]).await;
    phone.signal("KILL").await;
    let (at_home, id_at_home) = connect(&owner, &clients, POLLING, &server.gateway).await;
    at_home.emit("join_room", json!({"locationId": rooms[1]}));
    log.find("join", &[("socket", &id_at_home[..6])]).await;
    lines.extend(log.read);

    let rows = documented("jq -cs", &lines).await;
    assert_eq!(rows.len(), 2, "{rows:?}");
    let row = |id: &str| rows.iter().find(|row| row["socket"] == id[..6]).expect("a row");
    let names = |rooms: &[u64]| rooms.iter().map(u64::to_string).collect::<Vec<_>>();
    let (gone, here) = (row(&id), row(&id_at_home));
    assert_eq!(gone["connected"]["transport"], "websocket");
    assert_eq!(gone["rooms"], json!(names(&[rooms[0], rooms[2]])));
    assert_eq!(gone["ended"]["reason"], "ping_timeout");
    assert_eq!((&here["connected"]["transport"], &here["ended"]), (&json!("polling"), &Value::Null));
    assert_eq!(here["rooms"], json!(names(&rooms[1..2])));

    let mut found = documented("grep '\"user\":\"7\"'", &lines).await;
    found.retain(|line| line["socket"] == id[..6]);
    let said: Vec<_> = found.iter().map(|line| line["message"].as_str().expect("a message")).collect();
    assert_eq!(said, ["connect", "join", "join", "join", "leave", "disconnect"]);
    assert!(found.iter().all(|line| line["timestamp"].is_string()), "{found:?}");
    assert_eq!((&found[0]["client"], &found[0]["transport"]), (&json!("127.0.0.1"), &json!("websocket")));
    let joined: Vec<_> = found[1..4].iter().map(|line| line["room"].clone()).collect();
    assert_eq!(joined, rooms.map(|room| json!(room.to_string())));
    assert_eq!(found[4]["room"], rooms[1].to_string());
    let end = &found[5];
    assert_eq!((&end["reason"], &end["client"]), (&json!("ping_timeout"), &json!("127.0.0.1")));
    assert_eq!(end["rooms"], format!("{} {}", rooms[0], rooms[2]));
    assert!(end["connected_s"].is_u64(), "{end}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_of_every_connection_that_the_server_ends_why_and_whose_it_was() {
    const READS: u64 = 20;
    const READS_NOT: u64 = 21;
    const REMOVED: u64 = 22;
    const REMOVED_POLLING: u64 = 23;
    const WANDERS: u64 = 24;
    const STAYS: u64 = 25;
    // A token is taken for a while after its end.
    const LEEWAY_MS: i64 = 30_000;
    let settings = [KEY, ("PING_INTERVAL", "1s"), ("PING_TIMEOUT", "3s")];
    let (server, mut log) = Process::serve(Db::Sqlite, &settings).await;
    let owner = Pass::user(7);
    let room = owner.create(&server).await;
    for user in READS..=STAYS {
        owner.grant(&server, room, user, "viewer").await;
    }
    let by = |token: String| json!({"token": token}).to_string();
    let open = async |auth: String| {
        let mut client = WebSocket::connect_with(&server.gateway, "/socket.io/", false, &auth).await;
        client.join(&[room]).await;
        client
    };
    let _removed = open(by(mint(REMOVED, None, false))).await;
    let auth = by(mint(REMOVED_POLLING, None, false));
    let mut polling = Polling::connect_with(&server.gateway, "/socket.io/", &auth).await;
    polling.ask("join_room", &json!({"locationId": room})).await;
    polling.chat().await;
    for user in [REMOVED, REMOVED_POLLING] {
        let path = format!("/location/{room}/members/{user}");
        owner.must(&server, Method::DELETE, &path, None).await;
    }
    let mut wanders = open(by(mint(WANDERS, None, false))).await;
    for _ in 0..3 {
        wanders.send("40/elsewhere,").await;
    }
    let brief = |user| by(mint_for(2_000 - LEEWAY_MS, user, None, false));
    let (mut reads, _reads_not) = (open(brief(READS)).await, open(brief(READS_NOT)).await);
    while !matches!(reads.next().await, Seen::End) {}
    for (user, reason, rooms) in [
        (READS, "token_ended", room.to_string()),
        (READS_NOT, "token_ended", room.to_string()),
        (REMOVED, "withdrawn", String::new()),
        (REMOVED_POLLING, "withdrawn", String::new()),
        (WANDERS, "parse_error", room.to_string()),
    ] {
        let end = log.find("disconnect", &[("user", &user.to_string())]).await;
        assert_eq!((&end["reason"], &end["rooms"]), (&json!(reason), &json!(rooms)), "{end}");
    }
    let _stays = open(by(mint(STAYS, None, false))).await;
    server.stop().await;
    let end = log.find("disconnect", &[("user", &STAYS.to_string())]).await;
    assert_eq!((&end["reason"], &end["rooms"]), (&json!("server_closing"), &json!(room.to_string())));
}
