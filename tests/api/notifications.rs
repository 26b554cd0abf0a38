//! Notifications: who is told what, that it is there when they come back, and that what was pushed is what is
//! stored.

use std::{
    collections::{BTreeMap, HashSet},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use georoom::domain::error::Code;
use reqwest::{Method, StatusCode};
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    on_both_databases,
    support::{
        Db, TestDatabase, TestServer,
        clients::{Clients, KINDS, PATIENCE},
        machine,
        noise::{self, FAILED},
        people::{Person, delete, expel, patch, settle},
        point,
        problem::Problem,
        proxy::{End, Proxy},
        site::Site,
        tokens::{KEY, LOCKED, Pass, in_ms, mint},
    },
};

on_both_databases!(
    each_kind_reaches_those_concerned_and_never_who_did_it,
    what_happens_meanwhile_is_there_on_return_page_by_page_until_it_is_read,
    in_open_mode_notifications_are_those_of_a_label,
    all_ten_thousand_members_are_told,
    what_is_too_old_goes,
    what_is_too_much_goes,
    kill_9_leaves_push_and_store_agreeing,
);

/// The rest of the list's answer, beside notifications.
fn counts(list: &Value) -> [u64; 4] {
    ["page", "perPage", "total", "unread"].map(|name| list[name].as_u64().expect(name))
}

fn items(list: &Value) -> &Vec<Value> {
    list["notifications"].as_array().expect("notifications")
}

async fn list(pass: &Pass, server: &TestServer, query: &str) -> Value {
    pass.must(server, Method::GET, &format!("/notification{query}"), None).await
}

async fn each_kind_reaches_those_concerned_and_never_who_did_it(db: Db) {
    let server = TestServer::start_with(db, LOCKED).await;
    let clients = Clients::start();
    const ADA: usize = 0;
    const BOB: usize = 1;
    const NEMO: usize = 2;
    const ROOT: usize = 3;
    let who = [
        (1, Some("Ada"), false),
        (2, Some("Bob"), false),
        (3, None, false),
        (4, Some("Root"), true),
        (5, Some("Eve"), false),
    ];
    let mut people = Vec::new();
    for (at, who) in who.into_iter().enumerate() {
        people.push(Person::new(&server, &clients, KINDS[at], who).await);
    }
    let passes: Vec<_> = people.iter().map(|person| person.pass.clone()).collect();
    let (ada, bob, nemo, root) = (&passes[ADA], &passes[BOB], &passes[NEMO], &passes[ROOT]);
    let id = ada.create(&server).await;
    let mut told: Vec<Vec<Value>> = vec![Vec::new(); people.len()];
    let mut check = async |expected: &[(usize, &str, &str)]| {
        settle(&server).await;
        for (at, person) in people.iter_mut().enumerate() {
            let seen = person.events("notification").await;
            let said: Vec<_> = seen
                .iter()
                .map(|seen| {
                    assert_eq!(seen["locationId"], id, "{seen}");
                    (at, seen["kind"].as_str().expect("a kind"), seen["message"].as_str().expect("a text"))
                })
                .collect();
            let wanted: Vec<_> = expected.iter().filter(|(to, ..)| *to == at).copied().collect();
            assert_eq!(said, wanted, "to {at}");
            told[at].extend(seen);
        }
    };
    let place = format!("location {id}");

    ada.grant(&server, id, 2, "viewer").await;
    check(&[(BOB, "member_added", &format!("Ada added you to {place} as a viewer"))]).await;
    ada.grant(&server, id, 2, "viewer").await;
    check(&[]).await;
    ada.grant(&server, id, 2, "editor").await;
    check(&[(BOB, "role_changed", &format!("Ada made you an editor of {place}"))]).await;
    // Not Ada's doing: she is told too.
    root.grant(&server, id, 3, "viewer").await;
    check(&[
        (NEMO, "member_added", &format!("Root added you to {place} as a viewer")),
        (ADA, "member_added", &format!("Root added User 3 to {place} as a viewer")),
    ])
    .await;
    patch(bob, &server, id, json!({"name": "bike"})).await;
    let renamed = format!("Bob renamed {place} to “bike”");
    check(&[(ADA, "location_renamed", &renamed), (NEMO, "location_renamed", &renamed)]).await;
    // Neither the same name again, nor another property, nor a move.
    patch(bob, &server, id, json!({"name": "bike"})).await;
    patch(bob, &server, id, json!({"colour": "red", "other": {"name": "x"}})).await;
    bob.mv(&server, id).await;
    check(&[]).await;
    // Also together with a move.
    let body = json!({"geometry": point(2.5, 2.5), "properties": {"name": "car"}});
    ada.must(&server, Method::PUT, &format!("/location/{id}"), Some(body)).await;
    let renamed = "Ada renamed “bike” to “car”";
    check(&[(BOB, "location_renamed", renamed), (NEMO, "location_renamed", renamed)]).await;
    ada.share(&server, id, json!({"label": "not for members"})).await;
    let shared = "Ada made a share link to “car”";
    check(&[(BOB, "share_created", shared), (NEMO, "share_created", shared)]).await;
    expel(nemo, &server, id, 3).await;
    check(&[(ADA, "member_removed", "User 3 left “car”")]).await;
    patch(ada, &server, id, json!({"name": null})).await;
    check(&[(BOB, "location_renamed", &format!("Ada took away the name of “car”, now {place}"))]).await;
    // Refused: nothing has happened.
    let path = format!("/location/{id}");
    let body = json!({"properties": {"name": "mine"}});
    assert_eq!(passes[4].send(&server, Method::PUT, &path, Some(&body)).await.status(), 404);
    assert_eq!(bob.send(&server, Method::DELETE, &path, None).await.status(), 403);
    check(&[]).await;
    ada.grant(&server, id, 3, "viewer").await;
    check(&[(NEMO, "member_added", &format!("Ada added you to {place} as a viewer"))]).await;
    root.must(&server, Method::DELETE, &format!("/location/{id}/members/3"), None).await;
    check(&[
        (NEMO, "member_removed", &format!("Root removed you from {place}")),
        (ADA, "member_removed", &format!("Root removed User 3 from {place}")),
    ])
    .await;
    delete(root, &server, id).await;
    let deleted = format!("Root deleted {place}");
    check(&[(ADA, "location_deleted", &deleted), (BOB, "location_deleted", &deleted)]).await;

    // What was pushed is what is kept, newest first; and it says the same for programs.
    let mut ids = HashSet::new();
    for (pass, mut told) in passes.iter().zip(told) {
        told.reverse();
        let kept = list(pass, &server, "?perPage=100").await;
        assert_eq!(items(&kept), &told);
        assert_eq!(counts(&kept), [1, 100, told.len() as u64, told.len() as u64]);
        assert!(told.iter().all(|told| ids.insert(told["id"].as_u64())), "an id is one person's");
    }
    let to_bob = list(bob, &server, "?perPage=100").await;
    let fields: Vec<_> = items(&to_bob).iter().rev().map(|item| item["fields"].clone()).collect();
    let ada = |more: Value| {
        let mut fields = json!({"userId": 1, "userName": "Ada"});
        fields.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        fields
    };
    let until = fields[3]["expiresAt"].clone();
    assert_eq!(
        fields,
        [
            ada(json!({"memberId": 2, "memberName": "Bob", "role": "viewer"})),
            ada(json!({"memberId": 2, "memberName": "Bob", "role": "editor"})),
            ada(json!({"locationName": "bike", "newName": "car"})),
            ada(json!({"locationName": "car", "expiresAt": until})),
            ada(json!({"locationName": "car"})),
            json!({"userId": 4, "userName": "Root"}),
        ]
    );
    server.stop().await;
}

async fn what_happens_meanwhile_is_there_on_return_page_by_page_until_it_is_read(db: Db) {
    let server = TestServer::start_with(db, LOCKED).await;
    let (owner, member, other) = (Pass::user(10), Pass::user(11), Pass::user(12));
    let id = owner.create(&server).await;
    let before = in_ms(0);
    owner.grant(&server, id, 11, "viewer").await;
    owner.grant(&server, id, 12, "viewer").await;
    for n in 0..22 {
        patch(&owner, &server, id, json!({"name": format!("bike {n}")})).await;
    }
    let clients = Clients::start();
    let mut back = Person::new(&server, &clients, KINDS[0], (11, None, false)).await;
    delete(&owner, &server, id).await;
    settle(&server).await;
    // Only what happens now comes by itself.
    assert_eq!(back.events("notification").await.len(), 1);

    let first = list(&member, &server, "").await;
    assert_eq!(counts(&first), [1, 20, 24, 24]);
    let second = list(&member, &server, "?page=2&perPage=20").await;
    assert_eq!(counts(&second), [2, 20, 24, 24]);
    assert_eq!(items(&list(&member, &server, "?page=3").await).len(), 0);
    let all: Vec<_> = items(&first).iter().chain(items(&second)).cloned().collect();
    let kinds: Vec<_> = all.iter().map(|item| item["kind"].as_str().expect("a kind")).collect();
    assert_eq!((kinds[0], kinds[23], kinds.len()), ("location_deleted", "member_added", 24));
    assert!(kinds[1..23].iter().all(|kind| *kind == "location_renamed"), "{kinds:?}");
    assert_eq!(all[1]["fields"]["newName"], "bike 21");
    for item in &all {
        let names: HashSet<_> = item.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(names, HashSet::from(["id", "kind", "message", "locationId", "createdAt", "fields"]));
        let at = item["createdAt"].as_str().expect("a time");
        assert!(before.as_str() <= at && at.len() == 24 && at.ends_with('Z'), "{at}");
    }
    assert!(all.is_sorted_by_key(|item| std::cmp::Reverse(item["id"].as_u64())));

    // One is read, once and for all; others' are nobody's.
    let one = &all[5]["id"];
    let path = format!("/notification/{one}");
    let read = Some(json!({"read": true}));
    let first = member.must(&server, Method::PATCH, &path, read.clone()).await;
    let mut expected = all[5].clone();
    expected["readAt"] = first["readAt"].clone();
    assert!(first["readAt"].is_string());
    assert_eq!(first, expected);
    assert_eq!(member.must(&server, Method::PATCH, &path, read.clone()).await, first);
    let unread = list(&member, &server, "?unread=true&perPage=100").await;
    assert_eq!(counts(&unread), [1, 100, 23, 23]);
    assert!(items(&unread).iter().all(|item| item["id"] != *one && item.get("readAt").is_none()));
    assert_eq!(counts(&list(&member, &server, "?unread=false&perPage=7&page=4").await), [4, 7, 24, 23]);

    let check =
        async |pass: &Pass, method: Method, path: &str, body: Option<Value>, status: u16, code: Code| {
            let about = format!("{method} {path} {body:?}");
            let refused = Problem::of(pass.send(&server, method, path, body.as_ref()).await).await;
            Problem::check(refused, StatusCode::from_u16(status).expect("a status"), code, &about)
        };
    check(&other, Method::PATCH, &path, read.clone(), 404, Code::NotFound).await;
    check(&Pass::admin(13), Method::PATCH, &path, read.clone(), 404, Code::NotFound).await;
    for id in ["0", "1", "-1", "x", "9223372036854775808", "9007199254740993"] {
        check(&member, Method::PATCH, &format!("/notification/{id}"), read.clone(), 404, Code::NotFound)
            .await;
    }
    for body in [json!({}), json!({"read": false}), json!({"read": null})] {
        let refused = check(&member, Method::PATCH, &path, Some(body), 422, Code::InvalidBody).await;
        assert_eq!(refused.pointer.as_deref(), Some("/read"));
    }
    for query in ["page=0", "perPage=101", "unread=1", "unread=", "since=3", "page=1&page=1"] {
        let path = format!("/notification?{query}");
        check(&member, Method::GET, &path, None, 422, Code::InvalidParameter).await;
    }
    for (method, path) in [
        (Method::POST, "/notification"),
        (Method::DELETE, path.as_str()),
        (Method::GET, path.as_str()),
        (Method::PATCH, "/notification/read-all"),
    ] {
        check(&member, method, path, None, 405, Code::MethodNotAllowed).await;
    }
    check(&Pass::Nothing, Method::GET, "/notification", None, 401, Code::Unauthorized).await;
    let guest = owner.create(&server).await;
    let guest = owner.guest(&server, guest).await;
    check(&guest, Method::GET, "/notification", None, 403, Code::Forbidden).await;
    check(&guest, Method::POST, "/notification/read-all", None, 403, Code::Forbidden).await;

    // All the others, with a body or without; not those of others.
    let done = member.must(&server, Method::POST, "/notification/read-all", None).await;
    assert_eq!(counts(&done), [1, 20, 24, 0]);
    assert!(items(&done).iter().all(|item| item["readAt"].is_string()));
    assert_eq!(counts(&list(&member, &server, "?unread=true").await), [1, 20, 0, 0]);
    let again = items(&list(&member, &server, "?perPage=100").await)[5].clone();
    assert_eq!(again, first, "it was read before");
    assert_eq!(counts(&list(&other, &server, "").await), [1, 20, 24, 24]);
    other.must(&server, Method::POST, "/notification/read-all", Some(json!({}))).await;
    assert_eq!(counts(&list(&other, &server, "").await), [1, 20, 24, 0]);
    assert_eq!(counts(&list(&owner, &server, "").await), [1, 20, 0, 0], "who did it all");
    server.stop().await;
}

async fn in_open_mode_notifications_are_those_of_a_label(db: Db) {
    let server = TestServer::start(db).await;
    let clients = Clients::start();
    let mut client = clients.connect(&server.gateway).await.hearing_all();
    client.ask("join", json!({"userId": 20})).await;
    let id = server.create_at(1.5, 1.5).await;
    let path = format!("/location/{id}/members/20");
    let anyone = Pass::Nothing;
    // By user 30, in the bodies; then in the query.
    anyone.must(&server, Method::PUT, &path, Some(json!({"role": "viewer", "userId": 30}))).await;
    let share = json!({"expiresAt": in_ms(60_000), "userId": 20});
    anyone.must(&server, Method::POST, &format!("/location/{id}/shares"), Some(share)).await;
    anyone.must(&server, Method::DELETE, &format!("/location/{id}?userId=30"), None).await;
    let texts = async |label: u64| -> Vec<String> {
        let kept = list(&anyone, &server, &format!("?userId={label}")).await;
        items(&kept).iter().rev().map(|item| item["message"].as_str().expect("a text").to_owned()).collect()
    };
    let place = format!("location {id}");
    let deleted = format!("User 30 deleted {place}");
    let to_20 = [format!("User 30 added you to {place} as a viewer"), deleted.clone()];
    assert_eq!(texts(20).await, to_20);
    let added = format!("User 30 added User 20 to {place} as a viewer");
    assert_eq!(texts(1).await, [added, format!("User 20 made a share link to {place}"), deleted]);
    assert_eq!(list(&anyone, &server, "").await, list(&anyone, &server, "?userId=1").await);
    assert_eq!(texts(30).await, Vec::<String>::new());
    settle_open(&server).await;
    let seen = client.drain().await.into_iter().filter(|saw| saw["event"] == "notification");
    let pushed: Vec<_> = seen.map(|saw| saw["args"][0]["message"].clone()).collect();
    assert_eq!(pushed, to_20);

    let one = items(&list(&anyone, &server, "?userId=20").await)[0]["id"].clone();
    let read = json!({"read": true});
    let path = format!("/notification/{one}");
    assert_eq!(server.send(Method::PATCH, &path, Some(&read)).await.status(), 404, "not user 1's");
    anyone.must(&server, Method::PATCH, &format!("{path}?userId=20"), Some(read)).await;
    assert_eq!(counts(&list(&anyone, &server, "?userId=20").await)[3], 1);
    anyone.must(&server, Method::POST, "/notification/read-all?userId=20", None).await;
    assert_eq!(counts(&list(&anyone, &server, "?userId=20").await)[3], 0);
    assert_eq!(counts(&list(&anyone, &server, "").await)[3], 3);
    anyone.must(&server, Method::POST, "/notification/read-all", Some(json!({"userId": 1}))).await;
    assert_eq!(counts(&list(&anyone, &server, "").await)[3], 0);
    server.stop().await;
}

async fn settle_open(server: &TestServer) {
    let id = server.create_at(1.5, 1.5).await;
    assert_eq!(server.delete(id).await, StatusCode::NO_CONTENT);
}

async fn all_ten_thousand_members_are_told(db: Db) {
    let server = TestServer::start_with(db, LOCKED).await;
    let owner = Pass::user(10);
    // Those of two in one transaction are too many; so are two names of one.
    let ids = [owner.create(&server).await, owner.create(&server).await];
    let raw = server.database.open().await;
    for id in ids {
        let members: Vec<_> = (100..10_100).map(|user| format!("({id},{user},1,5)")).collect();
        let sql =
            format!("INSERT INTO member (location_id, user_id, role, added_at) VALUES {}", members.join(","));
        raw.execute_unprepared(&sql).await.expect("members");
    }
    if db == Db::MySql {
        // Its ids are not given again after a rollback.
        let tried = "CREATE TABLE tried (id INT AUTO_INCREMENT PRIMARY KEY)";
        raw.execute_unprepared(tried).await.expect("a table");
        let count = "CREATE TRIGGER count AFTER INSERT ON history FOR EACH ROW INSERT INTO tried VALUES ()";
        raw.execute_unprepared(count).await.expect("a trigger");
    }
    let names = (0..4).map(|n| patch(&owner, &server, ids[n % 2], json!({"name": format!("bike {n}")})));
    let started = tokio::time::Instant::now();
    join_all(names.map(Box::pin)).await;
    println!("4 names told 10,000 each: {:?}", started.elapsed());
    for user in [100, 5_000, 10_099] {
        let kept = list(&Pass::user(user), &server, "").await;
        let mut names: Vec<_> =
            items(&kept).iter().map(|item| item["fields"]["newName"].to_string()).collect();
        names.sort();
        assert_eq!(names, [0, 1, 2, 3].map(|n| format!("\"bike {n}\"")), "to {user}");
    }
    let number = async |what: &str| {
        let sql =
            Statement::from_string(raw.get_database_backend(), format!("SELECT CAST({what} AS SIGNED)"));
        let row = raw.query_one_raw(sql).await.expect("an answer").expect("a row");
        row.try_get_by_index::<i64>(0).expect("a number")
    };
    assert_eq!(number("(SELECT COUNT(*) FROM notification)").await, 40_000);
    if db == Db::MySql {
        assert_eq!(number("(SELECT MAX(id) FROM tried)").await, 4, "written to be rolled back");
    }
    server.stop().await;
}

/// Waits until so many are left; returns the newest.
async fn left(server: &TestServer, pass: &Pass, total: u64) -> Value {
    let gone = async {
        loop {
            let kept = list(pass, server, "?perPage=100").await;
            if counts(&kept)[2] <= total {
                return kept;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("fewer")
}

/// Waits until nothing is left of what people were told.
async fn no_notices(raw: &DatabaseConnection) {
    let gone = async {
        loop {
            let sql = Statement::from_string(raw.get_database_backend(), "SELECT COUNT(*) FROM notice");
            let left = raw.query_one_raw(sql).await.expect("a table").expect("a row");
            if left.try_get_by_index::<i64>(0).expect("a number") == 0 {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("no notices");
}

async fn what_is_too_old_goes(db: Db) {
    let server = TestServer::start_with(db, &[KEY, ("NOTIFICATION_AGE", "4s")]).await;
    let (owner, member) = (Pass::user(10), Pass::user(11));
    let id = owner.create(&server).await;
    for user in 11..20 {
        owner.grant(&server, id, user, "viewer").await;
    }
    for n in 0..5 {
        patch(&owner, &server, id, json!({"name": format!("bike {n}")})).await;
    }
    // A user the sweep comes to before them has some all the while that are not too old.
    let before = Pass::user(1);
    let other = before.create(&server).await;
    before.grant(&server, other, 2, "viewer").await;
    let telling = async {
        loop {
            patch(&before, &server, other, json!({"name": "car"})).await;
            patch(&before, &server, other, json!({"name": "boat"})).await;
            sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::select! {
        () = telling => {}
        _ = left(&server, &member, 0) => {}
    }
    assert!(counts(&list(&Pass::user(2), &server, "").await)[2] > 0);
    let raw = server.database.open().await;
    no_notices(&raw).await;
    drop(raw);
    server.stop().await;
}

async fn what_is_too_much_goes(db: Db) {
    // Of one person's deeds a quarter of that.
    let server = TestServer::start_with(db, &[KEY, ("NOTIFICATION_COUNT", "20")]).await;
    let (owner, member) = (Pass::user(10), Pass::user(11));
    let id = owner.create(&server).await;
    owner.grant(&server, id, 11, "viewer").await;
    for n in 0..80 {
        patch(&owner, &server, id, json!({"name": format!("bike {n}")})).await;
    }
    // And up to 64 that came since.
    let kept = left(&server, &member, 5 + 64).await;
    let names: Vec<_> = items(&kept).iter().map(|item| item["fields"]["newName"].clone()).collect();
    assert!(names.len() >= 5, "{names:?}");
    let newest: Vec<_> = (0..80).rev().take(names.len()).map(|n| json!(format!("bike {n}"))).collect();
    assert_eq!(names, newest);
    // Of whom nobody hears anything new, too.
    let database = server.halt().await;
    let server = TestServer::start_on(database, &[KEY, ("NOTIFICATION_COUNT", "12")]).await;
    let kept = left(&server, &member, 3).await;
    assert_eq!(items(&kept).len(), 3);
    server.stop().await;
}

/// Whoever removes them finds out, too, that nobody answers any more.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_goes_also_where_connections_have_fallen_silent() {
    let database = TestDatabase::create(Db::MySql).await;
    let raw = database.open().await;
    let proxy = Proxy::start(&database, None).await;
    let settings = [KEY, ("DATABASE_URL", proxy.url.as_str()), ("NOTIFICATION_AGE", "2s")];
    let server = TestServer::start_on(database, &settings).await;
    let owner = Pass::user(10);
    let id = owner.create(&server).await;
    owner.grant(&server, id, 11, "viewer").await;
    proxy.end_all(End::Silent);
    no_notices(&raw).await;
    drop(raw);
    server.stop().await;
    proxy.cut().await;
}

/// On SQLite they need the connection that the writer has.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_reads_theirs_does_not_keep_others_from_writing() {
    let server = TestServer::start_with(Db::Sqlite, LOCKED).await;
    let owner = Pass::user(10);
    let id = owner.create(&server).await;
    let (stop, stopped) = watch::channel(false);
    let read = AtomicU64::new(0);
    let readers = (0..60).map(|_| async {
        while !*stopped.borrow() {
            owner.must(&server, Method::POST, "/notification/read-all", None).await;
            read.fetch_add(1, Ordering::Relaxed);
        }
    });
    let writes = async {
        for _ in 0..20 {
            owner.mv(&server, id).await;
        }
        stop.send(true).expect("readers");
        read.load(Ordering::Relaxed)
    };
    let (_, read) = tokio::join!(join_all(readers), writes);
    println!("{read} reads beside 20 writes");
    assert!(read < 20 * 30, "{read} went before 20 writes");
    server.stop().await;
}

/// SQLite gives the id of a notice again that was rolled back.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_was_told_proves_nothing() {
    noise::expect(&[FAILED]);
    let server = TestServer::start_with(Db::Sqlite, LOCKED).await;
    let (owner, other) = (Pass::user(10), Pass::user(20));
    let (id, renamed) = (owner.create(&server).await, other.create(&server).await);
    other.grant(&server, renamed, 21, "viewer").await;
    let raw = server.database.open().await;
    // From now on no COMMIT of a new member succeeds.
    for sql in [
        "CREATE TABLE nobody (id INTEGER PRIMARY KEY)",
        "CREATE TABLE refused (id INTEGER REFERENCES nobody (id) DEFERRABLE INITIALLY DEFERRED)",
        "CREATE TRIGGER refuse AFTER INSERT ON member BEGIN INSERT INTO refused VALUES (1); END",
    ] {
        raw.execute_unprepared(sql).await.expect(sql);
    }
    let done = AtomicBool::new(false);
    let rename = async |by: u64| {
        let mut n = 0;
        while !done.load(Ordering::Relaxed) {
            n += 1;
            patch(&other, &server, renamed, json!({"name": format!("{by} {n}")})).await;
        }
    };
    let add = async {
        for user in 11..14 {
            let path = format!("/location/{id}/members/{user}");
            let added = owner.send(&server, Method::PUT, &path, Some(&json!({"role": "viewer"}))).await;
            assert_eq!(added.status(), StatusCode::INTERNAL_SERVER_ERROR);
        }
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(join_all((0..4).map(rename)), add);
    let members = owner.get(&server, &format!("/location/{id}/members")).await.1;
    assert_eq!(members["members"], json!([]));
    drop(raw);
    server.stop().await;
}

/// What one owner has done, as far as it was answered.
#[derive(Default)]
struct Done {
    names: Vec<String>,
    members: Vec<u64>,
}

async fn kill_9_leaves_push_and_store_agreeing(db: Db) {
    const OWNERS: u64 = 6;
    const LISTENER: u64 = 500;
    let _share = machine::half().await;
    let quiet = ("RUST_LOG", "warn,georoom::server=info");
    let site = Site::new(db, &[quiet, KEY, ("NOTIFICATION_COUNT", "100000")]).await;
    let mut server = site.start().await;
    let clients = Clients::start();
    let mut opts = Pass::user(LISTENER).opts(KINDS[0]);
    for (name, value) in [
        ("reconnection", json!(true)),
        ("reconnectionDelay", json!(20)),
        ("reconnectionDelayMax", json!(100)),
    ] {
        opts[name] = value;
    }
    let mut listener = clients.open("4", &site.gateway, opts).hearing_all();
    listener.connected().await;
    let http = reqwest::Client::new();
    let send = async |owner: u64, method: Method, path: String, body: Option<Value>| {
        let request =
            http.request(method, format!("{}{path}", site.api)).bearer_auth(mint(owner, None, false));
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        let response = request.send().await.ok()?;
        let status = response.status();
        let text = response.text().await.ok()?;
        Some((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
    };
    let mut ids = BTreeMap::new();
    for owner in 0..OWNERS {
        let body = json!({"geometry": point(1.5, 1.5)});
        let made = send(owner, Method::POST, "/location".into(), Some(body)).await.expect("an answer").1;
        let id = made["data"]["location"]["id"].as_u64().expect("an id");
        let path = format!("/location/{id}/members/{LISTENER}");
        send(owner, Method::PUT, path, Some(json!({"role": "viewer"}))).await.expect("an answer");
        ids.insert(owner, id);
    }
    let (stop, stopped) = watch::channel(false);
    let (count, mut counted) = watch::channel(0_usize);
    let work = (0..OWNERS).map(|owner| {
        let (send, id, stopped, count) = (&send, ids[&owner], stopped.clone(), &count);
        async move {
            let mut done = Done::default();
            let mut n = 0;
            while !*stopped.borrow() {
                n += 1;
                let name = format!("{owner} {n}");
                let body = json!({"properties": {"name": name}});
                let renamed = send(owner, Method::PUT, format!("/location/{id}"), Some(body)).await;
                let member = 1_000 + n;
                let path = format!("/location/{id}/members/{member}");
                let added = send(owner, Method::PUT, path, Some(json!({"role": "viewer"}))).await;
                match renamed {
                    Some((StatusCode::CREATED, _)) => done.names.push(name),
                    Some(other) => panic!("{other:?}"),
                    None => sleep(Duration::from_millis(5)).await,
                }
                match added {
                    Some((StatusCode::OK, _)) => done.members.push(member),
                    Some(other) => panic!("{other:?}"),
                    None => sleep(Duration::from_millis(5)).await,
                }
                count.send_modify(|count| *count += 1);
            }
            done
        }
    });
    let kills = async {
        for round in 0..3 {
            let until = *counted.borrow() + 20 + 7 * round;
            timeout(PATIENCE, counted.wait_for(|count| *count >= until))
                .await
                .expect("work")
                .expect("workers");
            server.kill().await;
            server = site.start().await;
        }
        let until = *counted.borrow() + 20;
        timeout(PATIENCE, counted.wait_for(|count| *count >= until)).await.expect("work").expect("workers");
        stop.send(true).expect("workers");
        server
    };
    let (done, server) = tokio::join!(join_all(work), kills);

    let all = async |user: u64| {
        let mut all: Vec<Value> = Vec::new();
        for page in 1.. {
            let path = format!("/notification?perPage=100&page={page}");
            let kept = send(user, Method::GET, path, None).await.expect("an answer").1;
            all.extend(items(&kept).iter().cloned());
            if all.len() as u64 >= counts(&kept)[2] {
                break;
            }
        }
        all
    };
    let stored = all(LISTENER).await;
    let by_id: BTreeMap<_, _> = stored.iter().map(|item| (item["id"].as_u64(), item)).collect();
    assert_eq!(by_id.len(), stored.len());
    let mut names = BTreeMap::new();
    for item in stored.iter().filter(|item| item["kind"] == "location_renamed") {
        *names.entry(item["fields"]["newName"].as_str().expect("a name").to_owned()).or_insert(0) += 1;
    }
    assert!(names.values().all(|times| *times == 1), "told twice: {names:?}");
    for name in done.iter().flat_map(|done| &done.names) {
        assert!(names.contains_key(name), "{name} was acknowledged and nobody told");
    }
    // Each was told of at most one owner's deed each; all that was acknowledged.
    let members: HashSet<_> = done.iter().flat_map(|done| &done.members).copied().collect();
    let told = join_all(members.iter().map(async |member| (*member, all(*member).await))).await;
    let told: BTreeMap<_, _> = told.into_iter().collect();
    for ((owner, id), done) in ids.iter().zip(&done) {
        for member in &done.members {
            let of = told[member]
                .iter()
                .filter(|item| (&item["kind"], &item["locationId"]) == (&json!("member_added"), &json!(id)));
            assert_eq!(of.count(), 1, "{member} of {id}, which is {owner}'s");
        }
    }
    let mut pushed = 0;
    for saw in listener.drain().await {
        if saw["event"] == "notification" {
            pushed += 1;
            assert_eq!(
                by_id.get(&saw["args"][0]["id"].as_u64()),
                Some(&&saw["args"][0]),
                "pushed, not stored"
            );
        }
    }
    println!("{} stored for one, {pushed} pushed, {} members", stored.len(), members.len());
    assert!(pushed > 20);
    server.stop().await;
    site.drop().await;
}
