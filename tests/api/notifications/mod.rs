//! Notifications: who is told what, that it is there when they come back, and that what was pushed is what is
//! stored.

mod kept;

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
