//! The `locations` feed: a list that is kept by it alone stays right.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::{
    on_both_databases,
    support::{
        Db, TestDatabase, TestServer,
        clients::{Clients, KINDS, PATIENCE},
        exposition::Exposition,
        machine,
        people::{Person, delete, expel, patch, settle},
        point,
        polling::Polling,
        process::Process,
        proxy::{Loss, Proxy},
        tokens::{KEY, LOCKED, Pass, token},
        truth::Random,
        websocket::{Seen, WebSocket},
    },
};

on_both_databases!(
    each_change_of_a_list_goes_to_those_whose_list_it_is,
    a_list_kept_by_the_feed_is_the_list_that_is_asked_for,
);

const OWNER: u64 = 10;
const MEMBER: u64 = 11;
const STRANGER: u64 = 12;
const ADMIN: u64 = 13;

async fn each_change_of_a_list_goes_to_those_whose_list_it_is(db: Db) {
    let server = TestServer::start_with(db, LOCKED).await;
    let clients = Clients::start();
    let mut people = Vec::new();
    for (at, (id, is_admin)) in
        [(OWNER, false), (OWNER, false), (MEMBER, false), (STRANGER, false), (ADMIN, true)]
            .into_iter()
            .enumerate()
    {
        people.push(Person::new(&server, &clients, KINDS[at], (id, None, is_admin)).await);
    }
    let (owner, admin) = (Pass::user(OWNER), Pass::admin(ADMIN));
    let id = owner.create(&server).await;
    let guest = owner.guest(&server, id).await.connect(&clients, &server.gateway).await.hearing_all();
    people.push(Person { pass: Pass::Nothing, client: guest });

    let mut check = async |what: &str, body: Value, to: [usize; 6]| {
        settle(&server).await;
        for (at, person) in people.iter_mut().enumerate() {
            let mut seen = person.events("locations").await;
            // Of the locations that are there to settle.
            seen.retain(|seen| seen["locationId"] == id || seen["location"]["id"] == id);
            assert_eq!(seen, vec![body.clone(); to[at]], "{what}: person {at}");
        }
    };
    let feature = owner.get(&server, &format!("/location/{id}")).await.1;
    check("made", json!({"action": "create", "location": feature}), [1, 1, 0, 0, 1, 0]).await;
    owner.mv(&server, id).await;
    check("moved", Value::Null, [0; 6]).await;
    owner.grant(&server, id, MEMBER, "viewer").await;
    let feature = owner.get(&server, &format!("/location/{id}")).await.1;
    check("shared", json!({"action": "create", "location": feature}), [0, 0, 1, 0, 0, 0]).await;
    owner.grant(&server, id, MEMBER, "editor").await;
    check("another role", Value::Null, [0; 6]).await;
    let feature = patch(&Pass::user(MEMBER), &server, id, json!({"colour": "red"})).await;
    check("changed", json!({"action": "update", "location": feature}), [1, 1, 1, 0, 1, 0]).await;
    // They see it anyway, and go on doing so.
    owner.grant(&server, id, ADMIN, "viewer").await;
    expel(&owner, &server, id, ADMIN).await;
    check("admin", Value::Null, [0; 6]).await;
    expel(&admin, &server, id, MEMBER).await;
    check("removed", json!({"action": "delete", "locationId": id}), [0, 0, 1, 0, 0, 0]).await;
    let feature = patch(&owner, &server, id, json!({"name": "bike"})).await;
    check("renamed", json!({"action": "update", "location": feature}), [1, 1, 0, 0, 1, 0]).await;
    let body = json!({"geometry": point(2.5, 2.5), "properties": {"name": "car"}});
    let answer = owner.must(&server, Method::PUT, &format!("/location/{id}"), Some(body.clone())).await;
    let feature = &answer["data"]["updatedLocationResult"];
    check("moved and renamed", json!({"action": "update", "location": feature}), [1, 1, 0, 0, 1, 0]).await;
    owner.must(&server, Method::PUT, &format!("/location/{id}"), Some(body)).await;
    check("moved, with the name it has", Value::Null, [0; 6]).await;
    owner.grant(&server, id, MEMBER, "viewer").await;
    let feature = owner.get(&server, &format!("/location/{id}")).await.1;
    check("again", json!({"action": "create", "location": feature}), [0, 0, 1, 0, 0, 0]).await;
    delete(&admin, &server, id).await;
    check("gone", json!({"action": "delete", "locationId": id}), [1, 1, 1, 0, 1, 0]).await;
    server.stop().await;
}

/// A location whose Feature has so many bytes, and some.
async fn create_large(pass: &Pass, server: &TestServer, bytes: usize) -> u64 {
    let body = json!({"geometry": point(0.5, 0.5), "properties": {"pad": "x".repeat(bytes)}});
    let made = pass.must(server, Method::POST, "/location", Some(body)).await;
    made["data"]["location"]["id"].as_u64().expect("an id")
}

/// The bodies of `locations` in an answer to a poll; it may have others.
fn listed(answer: &str) -> Vec<Value> {
    let packets = answer.split('\u{1e}').filter_map(|packet| packet.strip_prefix(r#"42["locations","#));
    packets.map(|body| serde_json::from_str(body.strip_suffix(']').expect("one")).expect("JSON")).collect()
}

/// As the handshake's `auth`.
fn auth(pass: &Pass) -> String {
    pass.opts(("4", "polling"))["auth"].to_string()
}

/// What `update`s of an answer to a poll say; it may have others.
fn updates(answer: &str) -> Vec<u64> {
    let updates = listed(answer).into_iter().filter(|body| body["action"] == "update");
    updates.map(|body| body["location"]["properties"]["n"].as_u64().expect("n")).collect()
}

/// What more may wait is bounded in bytes: beyond that the others are named, and no connection ends.
#[tokio::test(flavor = "multi_thread")]
async fn for_who_does_not_read_only_the_newest_of_each_location_waits_and_not_too_much() {
    // About a quarter of what a socket may have unread; what is larger is not sent into lists.
    const BYTES: usize = 15_000;
    let (server, _log) = Process::serve(Db::Sqlite, &[KEY]).await;
    let owner = Pass::user(OWNER);
    let mut large = Vec::new();
    for _ in 0..96 {
        large.push(create_large(&owner, &server, BYTES).await);
    }
    settle(&server).await;
    let connect = async || Polling::connect_with(&server.gateway, "/socket.io/", &auth(&owner)).await;
    let polling = connect().await;
    for n in 0..20 {
        patch(&owner, &server, large[0], json!({"n": n})).await;
    }
    settle(&server).await;
    let mut seen = Vec::new();
    while seen.last() != Some(&19) {
        seen.extend(updates(&polling.poll().await.1));
    }
    // What was on its way, and the newest.
    let on_its_way = seen.len() as u64 - 1;
    assert!(on_its_way < 10, "{seen:?}");
    assert_eq!(seen, (0..on_its_way).chain([19]).collect::<Vec<_>>());

    for id in &large {
        patch(&owner, &server, *id, json!({"n": 20})).await;
    }
    settle(&server).await;
    let (mut told, mut named) = (HashSet::new(), 0);
    while told.len() < large.len() {
        for body in listed(&polling.poll().await.1) {
            named += usize::from(body["locationId"].is_u64());
            let id = body["locationId"].as_u64().or(body["location"]["id"].as_u64());
            assert!(told.insert(id.expect("an id")), "{body}");
        }
    }
    assert!((1..large.len()).contains(&named), "{named}");
    let metrics = Exposition::scrape(&server).await;
    for none in ["georoom_given_up_sockets_total", "georoom_list_events_dropped_total"] {
        assert_eq!(metrics.value(none), 0.0, "{none}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_admin_no_more_is_not_told_what_waits() {
    const BYTES: usize = 15_000;
    let (server, mut log) = Process::serve(Db::Sqlite, &[KEY]).await;
    let owner = Pass::user(OWNER);
    let id = create_large(&owner, &server, BYTES).await;
    settle(&server).await;
    let admin = auth(&Pass::admin(ADMIN));
    let polling = Polling::connect_with(&server.gateway, "/socket.io/", &admin).await;
    let mut websocket = WebSocket::connect_with(&server.gateway, "/socket.io/", true, &admin).await;
    for n in 0..20 {
        patch(&owner, &server, id, json!({"n": n})).await;
    }
    settle(&server).await;
    let fresh = json!({"token": token(ADMIN)});
    websocket.emit("authenticate", &fresh).await;
    polling.send(&format!(r#"420["authenticate",{fresh}]"#)).await;
    // Unless it has taken too long over what was on its way: then it is told nothing at all.
    let mut seen = Vec::new();
    let mut is_over = false;
    while !is_over {
        let (status, answer) = polling.poll().await;
        is_over = !status.is_success() || answer.contains("430[");
        seen.extend(updates(&answer));
    }
    assert!([0, 1, 2, 3, 4, 5, 6, 7, 8, 9].starts_with(&seen), "{seen:?}");
    // What is on its way is not handed out later either.
    log.find("disconnect", &[("socket", &websocket.id[..6])]).await;
    server.stop().await;
}

/// Only where something of a location may be on its way is it worth a connection that nothing is.
#[tokio::test(flavor = "multi_thread")]
async fn a_removal_ends_no_connection_that_was_told_nothing() {
    let (server, mut log) = Process::serve(Db::Sqlite, &[KEY]).await;
    let owner = Pass::user(OWNER);
    let id = owner.create(&server).await;
    let connect = async || {
        let member = auth(&Pass::user(MEMBER));
        WebSocket::connect_with(&server.gateway, "/socket.io/", false, &member).await
    };
    // Neither reads what it is sent from here on.
    let mut told = connect().await;
    owner.grant(&server, id, MEMBER, "viewer").await;
    let mut untold = connect().await;
    // Who has given it a moment ago may take it back without that.
    expel(&Pass::admin(ADMIN), &server, id, MEMBER).await;
    log.find("disconnect", &[("socket", &told.id[..6])]).await;
    assert!(matches!(told.next().await, Seen::End));
    let ack = untold.emit("leave_room", &json!({"locationId": id})).await;
    assert!(matches!(untold.next().await, Seen::Ack(number, _) if number == ack));
    server.stop().await;
}

/// A deletion takes away nobody's right to what is still there.
#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_ends_no_connection() {
    let (server, _log) = Process::serve(Db::Sqlite, &[KEY]).await;
    let owner = Pass::user(OWNER);
    let member = auth(&Pass::user(MEMBER));
    let connect = async || WebSocket::connect_with(&server.gateway, "/socket.io/", false, &member).await;
    let id = owner.create(&server).await;
    let mut told = connect().await;
    owner.grant(&server, id, MEMBER, "viewer").await;
    let mut joined = connect().await;
    joined.join(&[id]).await;
    // Neither reads from here on.
    patch(&owner, &server, id, json!({"n": 1})).await;
    delete(&owner, &server, id).await;
    settle(&server).await;
    // As long as it takes where a right is withdrawn.
    sleep(Duration::from_millis(1_200)).await;
    for (socket, is_in_room) in [(&mut told, false), (&mut joined, true)] {
        let ack = socket.emit("leave_room", &json!({"locationId": id})).await;
        let mut is_closed = false;
        loop {
            match socket.next().await {
                Seen::Position(position) => assert!(!is_closed, "{position:?}"),
                Seen::RoomClosed(_) => is_closed = true,
                Seen::Ack(number, _) if number == ack => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(is_closed, is_in_room);
    }
    server.stop().await;
}

/// What a list shows of each location besides where it is: the version it was last told, and the name.
type List = BTreeMap<u64, (u64, Value)>;

fn shown(feature: &Value) -> (u64, (u64, Value)) {
    let properties = &feature["properties"];
    let version = properties["version"].as_u64().expect("a version");
    (feature["id"].as_u64().expect("an id"), (version, properties["name"].clone()))
}

async fn asked(pass: &Pass, server: &TestServer) -> List {
    let mut list = List::new();
    for page in 1.. {
        let path = format!("/location?perPage=100&page={page}");
        let answer = pass.must(server, Method::GET, &path, None).await;
        let features = answer["features"].as_array().expect("a list");
        list.extend(features.iter().map(shown));
        if features.len() < 100 {
            break;
        }
    }
    list
}

/// Takes over a change, which must follow from what the list shows.
fn apply(list: &mut List, change: &Value) {
    let before = list.clone();
    let fits = match change["action"].as_str().expect("an action") {
        "create" => {
            let (id, shown) = shown(&change["location"]);
            list.insert(id, shown).is_none()
        }
        "update" => {
            let (id, shown) = shown(&change["location"]);
            let newer = shown.0;
            list.insert(id, shown).is_some_and(|(version, _)| version < newer)
        }
        "delete" => list.remove(&change["locationId"].as_u64().expect("an id")).is_some(),
        _ => false,
    };
    assert!(fits, "{change} after {before:?}");
}

async fn a_list_kept_by_the_feed_is_the_list_that_is_asked_for(db: Db) {
    const USERS: u64 = 4;
    let server = TestServer::start_with(db, LOCKED).await;
    let clients = Clients::start();
    let passes: Vec<_> = (1..=USERS).map(Pass::user).collect();
    for pass in &passes {
        for _ in 0..3 {
            pass.create(&server).await;
        }
    }
    // Of those nobody who connects now is told.
    settle(&server).await;
    let mut kept = Vec::new();
    for (id, kind) in (1..=USERS + 1).zip(KINDS) {
        let person = Person::new(&server, &clients, kind, (id, None, id > USERS)).await;
        let list = asked(&person.pass, &server).await;
        kept.push((person, list));
    }
    for wave in 0..4_u64 {
        let users = (0..8_u64).map(|at| {
            let (pass, server) = (passes[(at % USERS) as usize].clone(), &server);
            async move { meddle(&pass, server, Random(wave * 100 + at), USERS).await }
        });
        join_all(users).await;
        settle(&server).await;
        for (person, list) in &mut kept {
            person.events("locations").await.iter().for_each(|change| apply(list, change));
            let names = |list: List| list.into_iter().map(|(id, (_, name))| (id, name)).collect();
            let (kept, asked): (BTreeMap<_, _>, BTreeMap<_, _>) =
                (names(list.clone()), names(asked(&person.pass, &server).await));
            assert_eq!(kept, asked);
        }
    }
    server.stop().await;
}

/// Does this and that to whatever one sees, for a while; what is not allowed or gone by then is refused.
async fn meddle(pass: &Pass, server: &TestServer, mut random: Random, users: u64) {
    for turn in 0..15 {
        let seen: Vec<_> = asked(pass, server).await.into_keys().collect();
        let id = seen.get(random.below(seen.len().max(1))).copied().unwrap_or(1);
        let member = 1 + random.below(users as usize) as u64;
        let (method, path, body) = match random.below(20) {
            0..3 => (Method::POST, "/location".to_owned(), Some(json!({"geometry": point(1.5, 1.5)}))),
            3..8 => {
                let name = format!("{id} {turn} {}", random.below(1_000));
                (Method::PUT, format!("/location/{id}"), Some(json!({"properties": {"name": name}})))
            }
            8..10 => {
                let body = json!({"geometry": point(2.5, 2.5), "properties": {"moved": turn}});
                (Method::PUT, format!("/location/{id}"), Some(body))
            }
            10..15 => (
                Method::PUT,
                format!("/location/{id}/members/{member}"),
                Some(json!({"role": if random.below(2) == 0 { "viewer" } else { "editor" }})),
            ),
            15..18 => (Method::DELETE, format!("/location/{id}/members/{member}"), None),
            _ => (Method::DELETE, format!("/location/{id}"), None),
        };
        let status = pass.send(server, method.clone(), &path, body.as_ref()).await.status();
        let refused = [403, 404, 422].contains(&status.as_u16());
        assert!(status.is_success() || refused, "{method} {path}: {status}");
    }
}

/// Sends the first; once MySQL is asked to commit it, the second, which then waits for the connection. Of the first
/// COMMIT the answer is lost.
async fn lose_the_first(proxy: &Proxy, first: impl Future, second: impl Future) {
    let (_, before) = proxy.counts();
    proxy.slow_down(Duration::from_millis(400));
    proxy.lose_next(Some(Loss::Answer));
    let second = async {
        let committing = async {
            while proxy.counts().1 == before {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(PATIENCE, committing).await.expect("a COMMIT");
        second.await
    };
    tokio::join!(first, second);
    proxy.slow_down(Duration::ZERO);
}

/// What is found out later to have been committed is told in its order, and to those who may see it by then: another
/// server may have changed that meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_lost_commit_lists_are_as_rights_are_by_then() {
    // The second change has to come while it is not known what became of the first.
    let _share = machine::half().await;
    let database = TestDatabase::create(Db::MySql).await;
    let proxy = Proxy::start(&database, None).await;
    let server = TestServer::start_on(database, &[KEY, ("DATABASE_URL", &proxy.url)]).await;
    let other = Process::start(&[("DATABASE_URL", &server.database.url), KEY]).await;
    // The first server asks what became of its COMMIT only after that.
    let delete_through_other = async |pass: &Pass, path: &str| {
        let request = pass.on(server.http.delete(format!("{}{path}", other.api)));
        let answer = proxy.hold_during(request.send()).await;
        assert_eq!(answer.expect("an answer").status(), StatusCode::NO_CONTENT);
    };
    let clients = Clients::start();
    let mut owner = Person::new(&server, &clients, KINDS[0], (OWNER, None, false)).await;
    let mut member = Person::new(&server, &clients, KINDS[0], (MEMBER, None, false)).await;
    let id = owner.pass.create(&server).await;
    let path = format!("/location/{id}/members/{MEMBER}");
    owner.pass.grant(&server, id, MEMBER, "viewer").await;
    settle(&server).await;
    owner.events("locations").await;
    member.events("locations").await;

    let changed = patch(&owner.pass, &server, id, json!({"colour": "red"}));
    lose_the_first(&proxy, changed, expel(&owner.pass, &server, id, MEMBER)).await;
    settle(&server).await;
    let seen = member.events("locations").await;
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert_eq!(seen[0]["location"]["properties"]["colour"], "red");
    assert_eq!(seen[1], json!({"action": "delete", "locationId": id}));
    assert_eq!(owner.events("locations").await[0]["location"]["properties"]["colour"], "red");

    owner.pass.grant(&server, id, MEMBER, "viewer").await;
    settle(&server).await;
    member.events("locations").await;
    let changed = patch(&owner.pass, &server, id, json!({"colour": "blue"}));
    lose_the_first(&proxy, changed, delete_through_other(&owner.pass, &path)).await;
    settle(&server).await;
    assert_eq!(member.events("locations").await, Vec::<Value>::new());
    assert_eq!(owner.events("locations").await[0]["location"]["properties"]["colour"], "blue");

    // Nor does a location that is gone come into a list.
    let role = json!({"role": "viewer"});
    let added = owner.pass.send(&server, Method::PUT, &path, Some(&role));
    lose_the_first(&proxy, added, delete_through_other(&owner.pass, &format!("/location/{id}"))).await;
    settle(&server).await;
    assert_eq!(member.events("locations").await, Vec::<Value>::new());
    assert_eq!(*proxy.losses().borrow(), 3);
    other.stop().await;
    server.stop().await;
    proxy.cut().await;
}
