//! Callers who spend what others would have to pay: they are refused, and nobody else notices.

use std::{collections::HashMap, time::Duration};

use futures_util::future::join_all;
use reqwest::{Method, StatusCode, header::RETRY_AFTER};
use sea_orm::ConnectionTrait;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    on_both_databases, on_one_database,
    support::{
        Db, TestServer,
        clients::{Client, Clients, KINDS, PATIENCE},
        exposition::Exposition,
        people::{Person, expel, patch, settle},
        point,
        process::Process,
        tokens::{KEY, LOCKED, Pass, code},
        websocket::{Seen, TEXT, WebSocket, frame},
    },
};

on_both_databases!(
    what_one_does_to_another_is_bounded_and_the_other_keeps_what_they_have,
    of_one_persons_deeds_only_a_share_is_kept,
    who_adds_and_removes_at_once_has_told_nothing,
    a_refusal_reads_no_members,
);

on_one_database!(a_new_server_has_nothing_to_warn_of);

const ON: (&str, &str) = ("RATE_LIMITS", "on");
const OWNER: u64 = 10;
const VICTIM: u64 = 11;
const FRIEND: u64 = 12;
const ATTACKER: u64 = 666;

async fn locked(db: Db, settings: &[(&str, &str)]) -> TestServer {
    TestServer::start_with(db, &[LOCKED, &[ON], settings].concat()).await
}

async fn limited(server: &TestServer, limit: &str) -> f64 {
    Exposition::scrape(server).await.value(&format!("georoom_limited_total{{limit=\"{limit}\"}}"))
}

/// Makes users 100,000 and up members of a location, without telling them.
async fn fill(server: &TestServer, id: u64, members: u64) {
    let raw = server.database.open().await;
    let rows: Vec<_> = (100_000..100_000 + members).map(|user| format!("({id},{user},1,5)")).collect();
    let insert = "INSERT INTO member (location_id, user_id, role, added_at) VALUES";
    raw.execute_unprepared(&format!("{insert} {}", rows.join(","))).await.expect("members");
    raw.close().await.expect("close");
}

async fn set_role(pass: &Pass, server: &TestServer, id: u64, member: u64, role: &str) -> reqwest::Response {
    let path = format!("/location/{id}/members/{member}");
    pass.send(server, Method::PUT, &path, Some(&json!({"role": role}))).await
}

/// How often each status came.
fn count(statuses: &[StatusCode], status: StatusCode) -> usize {
    statuses.iter().filter(|found| **found == status).count()
}

fn auth(pass: &Pass) -> String {
    pass.opts(("4", "websocket"))["auth"].to_string()
}

/// The `locationId` and `version` of events that show no Feature, the version of the Feature of those that do.
fn named(event: &Value) -> (&Value, &Value, bool) {
    let location = &event["location"];
    match location.is_null() {
        true => (&event["locationId"], &event["version"], false),
        false => (&location["id"], &location["properties"]["version"], true),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_messages_of_one_viewer_end_nobodys_connection() {
    let server = locked(Db::Sqlite, &[]).await;
    let owner = Pass::user(OWNER);
    let id = owner.create(&server).await;
    for user in [VICTIM, FRIEND, ATTACKER] {
        owner.grant(&server, id, user, "viewer").await;
    }
    let connect = async |user: u64| {
        let mut socket =
            WebSocket::connect_with(&server.gateway, "/socket.io/", false, &auth(&Pass::user(user))).await;
        socket.join(&[id]).await;
        socket
    };
    // One of them reads nothing while it happens.
    let (mut busy, mut friend, mut attacker) =
        (connect(VICTIM).await, connect(FRIEND).await, connect(ATTACKER).await);
    let chat = format!(r#"42["chat",{{"roomName":{id},"message":"{}"}}]"#, "x".repeat(100));
    attacker.raw(&frame(TEXT, true, chat.as_bytes()).repeat(1_000)).await;
    // What happens to their own connection is their affair.
    let mut refused = 0;
    for _ in 0..1_000 {
        match attacker.next().await {
            Seen::Exception(exception) => refused += usize::from(code(&exception) == "rate_limited"),
            Seen::Relayed(_) => {}
            Seen::End => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(refused > 100, "{refused} refused");
    owner.mv(&server, id).await;
    for member in [&mut friend, &mut busy] {
        let mut relayed = 0;
        loop {
            match member.next().await {
                Seen::Relayed(_) => relayed += 1,
                Seen::Position(position) => break assert_eq!(position.version, 2),
                other => panic!("{other:?}"),
            }
        }
        assert!(relayed <= 100, "{relayed} messages");
    }
    // Others still talk.
    friend.emit("chat", &json!({"roomName": id, "message": "still here"})).await;
    loop {
        match busy.next().await {
            Seen::Relayed(chat) if chat["userId"] == FRIEND => break,
            Seen::Relayed(_) => {}
            other => panic!("{other:?}"),
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_sockets_of_a_user_have_one_budget_for_events() {
    let server = locked(Db::Sqlite, &[("LIMIT_USER_EVENTS", "3")]).await;
    let clients = Clients::start();
    let pass = Pass::user(ATTACKER);
    let leave = json!({"locationId": 1});
    let (mut done, mut refused) = (0, 0);
    for _ in 0..4 {
        let mut client = pass.connect(&clients, &server.gateway).await;
        let acks: Vec<_> = (0..40).map(|_| client.emit_for_ack("leave_room", leave.clone())).collect();
        for answer in client.acks_seeing(&acks).await.0 {
            match answer["status"] == "error" {
                true => assert_eq!((code(&answer), refused += 1).0, "rate_limited"),
                false => done += 1,
            }
        }
    }
    assert!((60..160).contains(&done), "{done} events");
    assert_eq!(limited(&server, "user_events").await, f64::from(refused));
    let mut other = Pass::user(OWNER).connect(&clients, &server.gateway).await;
    assert_eq!(other.ask("leave_room", leave).await, json!("1"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_sockets_of_a_user_have_so_many_rooms() {
    let server = locked(Db::Sqlite, &[("LIMIT_USER_ROOMS", "3")]).await;
    let clients = Clients::start();
    let owner = Pass::user(OWNER);
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(owner.create(&server).await);
    }
    let (mut one, mut two) =
        (owner.connect(&clients, &server.gateway).await, owner.connect(&clients, &server.gateway).await);
    one.join(ids[0]).await;
    one.join(ids[1]).await;
    two.join(ids[0]).await;
    let refused = two.ask("join_room", json!({"locationId": ids[2]})).await;
    assert_eq!(code(&refused), "rate_limited");
    assert_eq!(limited(&server, "user_rooms").await, 1.0);
    // One may enter again where one is, and leaving makes room; so does going away.
    two.join(ids[0]).await;
    one.leave(ids[1]).await;
    two.join(ids[2]).await;
    one.kill();
    let started = Instant::now();
    while two.ask("join_room", json!({"locationId": ids[3]})).await != json!(ids[3].to_string()) {
        assert!(started.elapsed() < PATIENCE);
        sleep(Duration::from_millis(20)).await;
    }
    server.stop().await;
}

/// Connects five sockets of one user and has each enter a room.
async fn enter(user: &Pass, clients: &Clients, server: &TestServer, id: u64) -> Vec<Client> {
    let mut members = Vec::new();
    for _ in 0..5 {
        let mut member = user.connect(clients, &server.gateway).await;
        member.join(id).await;
        members.push(member);
    }
    members
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_does_not_pay_for_those_in_the_room() {
    let server = locked(Db::Sqlite, &[("LIMIT_USER_DELIVERIES", "1")]).await;
    let clients = Clients::start();
    let (owner, stranger) = (Pass::user(OWNER), Pass::user(ATTACKER));
    let id = owner.create(&server).await;
    let _members = enter(&owner, &clients, &server, id).await;
    let body = json!({"id": id, "geometry": point(1.5, 1.5)});
    for _ in 0..5 {
        let answer = stranger.send(&server, Method::PUT, "/location", Some(&body)).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_members_that_are_asked_for_at_once_are_paid_for_one_after_the_other() {
    let server = locked(Db::Sqlite, &[("LIMIT_USER_ROWS", "20")]).await;
    let owner = Pass::user(OWNER);
    let id = owner.create(&server).await;
    fill(&server, id, 100).await;
    let path = format!("/location/{id}/members");
    let started = Instant::now();
    let lists = join_all((0..50).map(|_| owner.send(&server, Method::GET, &path, None))).await;
    let statuses: Vec<_> = lists.iter().map(reqwest::Response::status).collect();
    let listed = count(&statuses, StatusCode::OK);
    // Two hundred rows at once, one list more into debt, one beside it, and what has come back meanwhile.
    assert!((2..=4 + started.elapsed().as_secs() as usize).contains(&listed), "{listed} lists");
    assert_eq!(listed + count(&statuses, StatusCode::TOO_MANY_REQUESTS), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_owes_for_what_was_sent_to_many_is_refused_before_the_commit() {
    let server = locked(Db::Sqlite, &[("LIMIT_USER_DELIVERIES", "2")]).await;
    let clients = Clients::start();
    let (owner, other) = (Pass::user(OWNER), Pass::user(FRIEND));
    let (id, others) = (owner.create(&server).await, other.create(&server).await);
    let mut members = enter(&owner, &clients, &server, id).await;
    let body = json!({"id": id, "geometry": point(1.5, 1.5)});
    // However many are on their way at once.
    let started = Instant::now();
    let put = join_all((0..50).map(|_| owner.send(&server, Method::PUT, "/location", Some(&body)))).await;
    let refused = put.iter().find(|answer| answer.status() == StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.expect("a refusal").headers().contains_key(RETRY_AFTER));
    let statuses: Vec<_> = put.iter().map(reqwest::Response::status).collect();
    let moved = count(&statuses, StatusCode::CREATED);
    // Twenty at once for five members each, one more into debt, and what has come back meanwhile.
    let most = 5 + started.elapsed().as_secs() as usize;
    assert!((4..=most).contains(&moved), "{moved} moves");
    assert_eq!(moved + count(&statuses, StatusCode::TOO_MANY_REQUESTS), 50);
    let moved = moved as u64;
    assert!(limited(&server, "user_deliveries").await >= 1.0);
    // Others go on, and so does whatever is sent to nobody.
    other.mv(&server, others).await;
    let now = owner.get(&server, &format!("/location/{id}")).await.1;
    assert_eq!(now["properties"]["version"], moved + 1, "nothing of the refused one was committed");
    for member in &mut members {
        member.follow(id, 1, moved + 1).await;
    }
    while !owner.send(&server, Method::PUT, "/location", Some(&body)).await.status().is_success() {
        assert!(started.elapsed() < PATIENCE);
        sleep(Duration::from_millis(200)).await;
    }
    server.stop().await;
}

/// By both doors, in a room that is live and in one that is not, and for a share link that has ended.
async fn a_refusal_reads_no_members(db: Db) {
    const READS: &str = "georoom_access_reads_total";
    let server = locked(db, &[]).await;
    let clients = Clients::start();
    let owner = Pass::user(OWNER);
    let id = owner.create(&server).await;
    fill(&server, id, 9_000).await;
    let share = owner.share(&server, id, json!({})).await;
    let mut stranger = Pass::user(ATTACKER).connect(&clients, &server.gateway).await;
    let mut guest = Pass::of(&share).connect(&clients, &server.gateway).await;
    owner.must(&server, Method::DELETE, &format!("/location/{id}/shares/{}", share["id"]), None).await;
    let refuse = async |client: &mut Client| {
        for event in ["join_room", "presence"] {
            let acks: Vec<_> =
                (0..20).map(|_| client.emit_for_ack(event, json!({"locationId": id}))).collect();
            for answer in client.acks_seeing(&acks).await.0 {
                assert_eq!(code(&answer), "not_found", "{event}");
            }
        }
    };
    refuse(&mut stranger).await;
    refuse(&mut guest).await;
    let mut member = Pass::user(100_000).connect(&clients, &server.gateway).await;
    let nobody = member.ask("presence", json!({"locationId": id})).await;
    assert_eq!(nobody["sockets"], 0);
    Exposition::scrape(&server).await.assert(&[(READS, 0.0)]);
    // For whoever may see it they are read, once as long as the room lives.
    member.join(id).await;
    let mut second = Pass::user(100_001).connect(&clients, &server.gateway).await;
    second.join(id).await;
    refuse(&mut stranger).await;
    refuse(&mut guest).await;
    Exposition::scrape(&server).await.assert(&[(READS, 1.0)]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_all_members_read_again_and_again_is_refused() {
    // A quarter of the default, which a busy machine could not read fast enough to spend.
    let server = locked(Db::Sqlite, &[("LIMIT_USER_ROWS", "5000")]).await;
    let clients = Clients::start();
    let owner = Pass::user(OWNER);
    let (id, small) = (owner.create(&server).await, Pass::user(FRIEND).create(&server).await);
    fill(&server, id, 9_000).await;
    let list = |_| {
        let request = server.http.get(format!("{}/location/{id}/members", server.api));
        async { owner.on(request).send().await.expect("an answer").status() }
    };
    let mut listed = Vec::new();
    for round in 0..8 {
        listed.extend(join_all((0..8).map(|n| list(round * 8 + n))).await);
    }
    let (served, refused) = (count(&listed, StatusCode::OK), count(&listed, StatusCode::TOO_MANY_REQUESTS));
    assert!(served >= 5 && refused > 0 && served + refused == listed.len(), "{served} and {refused}");
    // Nothing is changed where the answer would have to list them all.
    assert_eq!(set_role(&owner, &server, id, VICTIM, "viewer").await.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(Pass::user(VICTIM).get(&server, &format!("/location/{id}")).await.0 == StatusCode::NOT_FOUND);
    // Nor may they be read to let the same user in.
    let mut socket = owner.connect(&clients, &server.gateway).await;
    assert_eq!(code(&socket.ask("join_room", json!({"locationId": id})).await), "rate_limited");
    Pass::user(FRIEND).connect(&clients, &server.gateway).await.join(small).await;
    // Positions are no reads.
    owner.mv(&server, id).await;
    server.stop().await;
}

async fn what_one_does_to_another_is_bounded_and_the_other_keeps_what_they_have(db: Db) {
    let server = locked(db, &[]).await;
    let clients = Clients::start();
    let (friend, attacker, admin) = (Pass::user(FRIEND), Pass::user(ATTACKER), Pass::admin(1));
    let mut victim = Person::new(&server, &clients, KINDS[0], (VICTIM, None, false)).await;
    let mut theirs = Vec::new();
    for _ in 0..3 {
        theirs.push(friend.create(&server).await);
        friend.grant(&server, theirs[theirs.len() - 1], VICTIM, "viewer").await;
    }
    let id = attacker.create(&server).await;
    let (mut put, mut deleted) = (Vec::new(), Vec::new());
    for _ in 0..60 {
        put.push(set_role(&attacker, &server, id, VICTIM, "viewer").await);
        let path = format!("/location/{id}/members/{VICTIM}");
        deleted.push(attacker.send(&server, Method::DELETE, &path, None).await.status());
    }
    let refused = put.iter().find(|answer| answer.status() == StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.expect("a refusal").headers().contains_key(RETRY_AFTER));
    let put: Vec<_> = put.iter().map(reqwest::Response::status).collect();
    let made = count(&put, StatusCode::OK);
    assert!((10..=16).contains(&made), "{made} changes");
    // Whoever was added could be removed.
    assert_eq!(count(&deleted, StatusCode::NO_CONTENT), made);
    assert_eq!(made + count(&put, StatusCode::TOO_MANY_REQUESTS), put.len());
    settle(&server).await;
    let told = victim.client.drain().await;
    // `registered`; and of each change `locations` and a notification, and `locations` of what takes it back.
    assert!(told.len() <= 1 + 2 * 3 + 3 * made, "{} events", told.len());
    assert!(told.iter().all(|saw| saw["kind"] == "event"), "{told:?}");
    let list = victim.pass.must(&server, Method::GET, "/notification?perPage=100", None).await;
    let from: Vec<_> = list["notifications"].as_array().expect("a list").iter().collect();
    assert_eq!(from.len(), 3, "nobody else's, and nothing is left of what was taken back: {from:?}");
    // Others may still do something to them, and the attacker to others; admins are backends.
    friend.grant(&server, theirs[0], VICTIM, "editor").await;
    attacker.grant(&server, id, OWNER, "viewer").await;
    for _ in 0..12 {
        admin.grant(&server, id, VICTIM, "viewer").await;
        expel(&admin, &server, id, VICTIM).await;
    }
    // A deed that only tells others is done all the same.
    for n in 0..12 {
        patch(&friend, &server, theirs[0], json!({"name": format!("bike {n}")})).await;
    }
    let list = victim.pass.must(&server, Method::GET, "/notification?perPage=100", None).await;
    let renamed = list["notifications"].as_array().expect("a list").iter();
    let renamed = renamed.filter(|notice| notice["kind"] == "location_renamed").count();
    assert!((3..12).contains(&renamed), "{renamed} names");
    server.stop().await;
}

async fn of_one_persons_deeds_only_a_share_is_kept(db: Db) {
    let settings = [("NOTIFICATION_COUNT", "20"), ("LIMIT_PAIR_NOTICES", "100000")];
    let server = locked(db, &settings).await;
    let (friend, attacker) = (Pass::user(FRIEND), Pass::user(ATTACKER));
    let victim = Pass::user(VICTIM);
    for _ in 0..5 {
        let id = friend.create(&server).await;
        friend.grant(&server, id, VICTIM, "viewer").await;
    }
    let id = attacker.create(&server).await;
    attacker.grant(&server, id, VICTIM, "viewer").await;
    // Side by side, so that many come between two steps of a trim.
    let renamed = (0..25).map(async |n| {
        for m in 0..8 {
            patch(&attacker, &server, id, json!({"name": format!("bike {n} {m}")})).await;
        }
    });
    join_all(renamed).await;
    let started = Instant::now();
    loop {
        // From the last page on, since a trim between two reads moves what is kept to pages before.
        let mut told = HashMap::new();
        for page in [3, 2, 1] {
            let path = format!("/notification?perPage=100&page={page}");
            let list = victim.must(&server, Method::GET, &path, None).await;
            let list = list["notifications"].as_array().expect("a list");
            told.extend(
                list.iter().map(|notice| (notice["id"].to_string(), notice["fields"]["userId"].as_u64())),
            );
        }
        let of = |user: u64| told.values().filter(|found| **found == Some(user)).count();
        assert_eq!(of(FRIEND), 5, "pushed out");
        // And up to 64 that have come since.
        if of(ATTACKER) <= 5 + 64 {
            break server.stop().await;
        }
        assert!(started.elapsed() < PATIENCE, "{} are kept", of(ATTACKER));
        sleep(Duration::from_millis(50)).await;
    }
}

async fn who_adds_and_removes_at_once_has_told_nothing(db: Db) {
    let server = TestServer::start_with(db, LOCKED).await;
    let clients = Clients::start();
    let (owner, admin) = (Pass::user(OWNER), Pass::admin(1));
    let mut member = Person::new(&server, &clients, KINDS[0], (VICTIM, None, false)).await;
    let id = owner.create(&server).await;
    let kinds = async |member: &Person| {
        let list = member.pass.must(&server, Method::GET, "/notification", None).await;
        let list = list["notifications"].as_array().expect("a list").iter();
        list.map(|notice| notice["kind"].as_str().expect("a kind").to_owned()).collect::<Vec<_>>()
    };
    owner.grant(&server, id, VICTIM, "viewer").await;
    owner.grant(&server, id, VICTIM, "editor").await;
    assert_eq!(kinds(&member).await, ["role_changed", "member_added"]);
    expel(&owner, &server, id, VICTIM).await;
    assert_eq!(kinds(&member).await, [""; 0]);
    settle(&server).await;
    let events = member.events("locations").await;
    assert_eq!(
        events.iter().map(|event| event["action"].as_str().expect("an action")).collect::<Vec<_>>(),
        ["create", "delete"],
        "their list is right"
    );
    // By another hand it is news, and so it is once the first was read.
    owner.grant(&server, id, VICTIM, "viewer").await;
    expel(&admin, &server, id, VICTIM).await;
    assert_eq!(kinds(&member).await, ["member_removed", "member_added"]);
    owner.grant(&server, id, VICTIM, "viewer").await;
    member.pass.must(&server, Method::POST, "/notification/read-all", None).await;
    expel(&owner, &server, id, VICTIM).await;
    assert_eq!(kinds(&member).await[..2], ["member_removed", "member_added"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_sent_no_large_features_and_not_too_many_of_one_persons() {
    let server = locked(Db::Sqlite, &[("LIMIT_PAIR_UPDATES", "1")]).await;
    let clients = Clients::start();
    let owner = Pass::user(OWNER);
    let mut mine = Person::new(&server, &clients, KINDS[0], (OWNER, None, false)).await;
    let mut member = Person::new(&server, &clients, KINDS[1], (VICTIM, None, false)).await;
    let body = json!({"geometry": point(0.5, 0.5), "properties": {"pad": "x".repeat(17_000)}});
    let made = owner.must(&server, Method::POST, "/location", Some(body)).await;
    let large = &made["data"]["location"]["id"];
    let id = owner.create(&server).await;
    for id in [large.as_u64().expect("an id"), id] {
        owner.grant(&server, id, VICTIM, "viewer").await;
    }
    settle(&server).await;
    for person in [&mut mine, &mut member] {
        let created = person.events("locations").await;
        let [first, second] = &created[..] else { panic!("{created:?}") };
        assert_eq!(first, &json!({"action": "create", "locationId": large, "version": 1}));
        assert!(second["location"]["geometry"].is_object());
    }
    for n in 0..30 {
        patch(&owner, &server, id, json!({"n": n})).await;
    }
    settle(&server).await;
    let whole = |events: &[Value]| events.iter().filter(|event| named(event).2).count();
    let (mine, member) = (mine.events("locations").await, member.events("locations").await);
    assert_eq!(whole(&mine), 30, "one's own");
    // One of the ten was spent on what they were made a member of.
    assert!((9..25).contains(&whole(&member)), "{}", whole(&member));
    let versions: Vec<_> = member.iter().map(named).map(|(of, v, _)| (of.clone(), v.clone())).collect();
    assert_eq!(versions, (2..32).map(|version| (json!(id), json!(version))).collect::<Vec<_>>());
    assert_eq!(limited(&server, "pair_updates").await, 0.0, "nobody was refused anything");
    server.stop().await;
}

/// Its reader has not confirmed to have read it; nobody can say that they were entitled to it for long.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_given_only_a_moment_ago_is_taken_back_without_ending_a_connection() {
    let (server, mut log) = Process::serve(Db::Sqlite, &[KEY]).await;
    let owner = Pass::user(OWNER);
    let id = owner.create(&server).await;
    let connect = async |user| {
        WebSocket::connect_with(&server.gateway, "/socket.io/", false, &auth(&Pass::user(user))).await
    };
    let (mut victim, bystander) = (connect(VICTIM).await, connect(FRIEND).await);
    let started = Instant::now();
    for user in [VICTIM, FRIEND] {
        owner.grant(&server, id, user, "viewer").await;
    }
    expel(&owner, &server, id, VICTIM).await;
    let is_fresh = started.elapsed() < Duration::from_secs(2);
    // By another hand: its connection ends, and that of the victim would have before.
    expel(&Pass::admin(1), &server, id, FRIEND).await;
    log.find("disconnect", &[("socket", &bystander.id[..6])]).await;
    if is_fresh {
        let ack = victim.emit("leave_room", &json!({"locationId": id})).await;
        assert!(matches!(victim.next().await, Seen::Ack(number, _) if number == ack));
    }
    server.stop().await;
}

/// The sweeps over notifications and history find none, then some that are too young, at the start and later.
async fn a_new_server_has_nothing_to_warn_of(db: Db) {
    const SWEPT_EACH_SECOND: [(&str, &str); 2] = [("NOTIFICATION_AGE", "10s"), ("HISTORY_AGE", "10s")];
    let (server, _log) = Process::serve(db, &[&[KEY], &SWEPT_EACH_SECOND[..]].concat()).await;
    let two_sweeps = Duration::from_millis(2_500);
    sleep(two_sweeps).await;
    let owner = Pass::user(OWNER);
    let id = owner.create(&server).await;
    owner.grant(&server, id, VICTIM, "viewer").await;
    owner.mv(&server, id).await;
    sleep(two_sweeps).await;
    // Every server's log is looked at (`support/noise.rs`).
    server.stop().await;
}
