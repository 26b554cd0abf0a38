//! Share links: made, listed, used at both doors, and ended.

use std::collections::HashSet;

use georoom::domain::error::Code;
use reqwest::{Method, StatusCode, header::HeaderMap};
use serde_json::{Value, json};

use crate::{
    on_both_databases, on_one_database,
    support::{
        Db, TestServer,
        clients::{Clients, KINDS},
        problem::Problem,
        tokens::{LOCKED, Pass, in_ms, knock, refusal, time_for},
    },
};

on_both_databases!(
    a_share_link_is_shown_once_listed_without_its_token_and_its_uses_counted,
    a_share_link_that_ends_takes_its_guests_out,
);

on_one_database!(
    what_is_no_share_link_is_refused_and_says_where,
    a_password_is_asked_for_by_both_doors,
    in_open_mode_everybody_manages_share_links_and_nobody_needs_one,
);

const OWNER: u64 = 10;
const DAY_MS: i64 = 24 * 3_600_000;

async fn shares(server: &TestServer, pass: &Pass, id: u64) -> Vec<Value> {
    let body = pass.must(server, Method::GET, &format!("/location/{id}/shares"), None).await;
    assert_eq!(body.as_object().map(|body| body.len()), Some(1), "{body}");
    body["shares"].as_array().expect("a list").clone()
}

async fn a_share_link_is_shown_once_listed_without_its_token_and_its_uses_counted(db: Db) {
    let server = TestServer::start_with(db, LOCKED).await;
    let clients = Clients::start();
    let owner = Pass::user(OWNER);
    let id = owner.create(&server).await;
    let path = format!("/location/{id}/shares");
    let (soon, late) = (in_ms(3_600_000), in_ms(30 * DAY_MS - 1_000));
    let mut tokens = HashSet::new();
    let mut made = Vec::new();
    for body in [
        json!({"expiresAt": soon}),
        json!({"expiresAt": late, "label": "für Ömer 🚲", "password": "correct horse"}),
        json!({"expiresAt": soon, "label": "é".repeat(255), "password": null, "token": "mine", "uses": 9, "id": 7}),
    ] {
        let answer = owner.must(&server, Method::POST, &path, Some(body.clone())).await;
        let share = &answer["data"]["share"];
        let token = share["token"].as_str().expect("a token");
        // 128 bits take 22 characters of base64.
        assert!(token.len() >= 22 && tokens.insert(token.to_owned()), "{token}");
        let mut expected = json!({"id": share["id"], "token": token, "expiresAt": body["expiresAt"]});
        if let Some(label) = body.get("label") {
            expected["label"] = label.clone();
        }
        assert_eq!(answer, json!({"status": 201, "data": {"share": expected}}));
        made.push(share.clone());
    }
    let listed = shares(&server, &owner, id).await;
    let expected = |n: usize, has_password: bool, uses: u64| {
        let mut share = json!({
            "id": made[n]["id"], "createdAt": listed[n]["createdAt"], "expiresAt": made[n]["expiresAt"],
            "hasPassword": has_password, "uses": uses,
        });
        if let Some(label) = made[n].get("label") {
            share["label"] = label.clone();
        }
        share
    };
    assert_eq!(listed, [expected(0, false, 0), expected(1, true, 0), expected(2, false, 0)]);
    for share in &listed {
        let created = share["createdAt"].as_str().expect("a time");
        assert!(
            created.len() == 24 && created <= in_ms(0).as_str() && created > in_ms(-60_000).as_str(),
            "{created}"
        );
    }

    // Each request is a use, and each connection; not what is refused.
    let guest = Pass::of(&made[0]);
    let secret = made[0]["token"].as_str().expect("a token");
    let before = in_ms(0);
    for _ in 0..2 {
        guest.must(&server, Method::GET, &format!("/location/{id}"), None).await;
    }
    let by_query = server.get(&format!("/location/{id}/history?share={secret}&since=0")).await;
    assert_eq!(by_query.0, StatusCode::OK);
    for kind in KINDS {
        let mut client = guest.connect_as(&clients, kind, &server.gateway).await;
        client.join(id).await;
        client.disconnect();
    }
    Pass::of(&made[1]).get(&server, &format!("/location/{id}")).await;
    let used = shares(&server, &owner, id).await;
    let last = used[0]["lastUsedAt"].as_str().expect("a time");
    assert!(last >= before.as_str() && last <= in_ms(0).as_str(), "{last}");
    let mut first = expected(0, false, 3 + KINDS.len() as u64);
    first["lastUsedAt"] = last.into();
    assert_eq!(used, [first, expected(1, true, 0), expected(2, false, 0)]);
    // Counted, never listed.
    assert_eq!(owner.get(&server, &format!("/location/{id}/members")).await.1, json!({"members": []}));

    let one = format!("{path}/{}", made[0]["id"]);
    let response = owner.send(&server, Method::DELETE, &one, None).await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    assert_eq!(response.text().await.expect("no body"), "");
    let again = Problem::of(owner.send(&server, Method::DELETE, &one, None).await).await;
    Problem::check(again, StatusCode::NOT_FOUND, Code::NotFound, "revoked twice");
    let refused = Problem::of(guest.send(&server, Method::GET, &format!("/location/{id}"), None).await).await;
    Problem::check(refused, StatusCode::UNAUTHORIZED, Code::InvalidShare, "revoked");
    for kind in KINDS {
        assert_eq!(refusal(&mut guest.open(&clients, kind, &server.gateway)).await, "invalid_share");
    }
    assert_eq!(shares(&server, &owner, id).await.len(), 2);
    server.stop().await;
}

async fn what_is_no_share_link_is_refused_and_says_where(db: Db) {
    let server = TestServer::start_with(db, LOCKED).await;
    let owner = Pass::user(OWNER);
    let id = owner.create(&server).await;
    let path = format!("/location/{id}/shares");
    let good = in_ms(60_000);
    let with = |name: &str, value: Value| {
        let mut body = json!({"expiresAt": good});
        body[name] = value;
        body.to_string()
    };
    let ends = Code::InvalidExpiresAt;
    let mut cases = vec![
        (String::new(), 400, Code::InvalidJson, None),
        ("[]".to_owned(), 422, Code::InvalidBody, Some("")),
        ("{}".to_owned(), 422, ends, Some("/expiresAt")),
        (
            format!(r#"{{"expiresAt":"{good}","expiresAt":"{good}"}}"#),
            422,
            Code::DuplicateMember,
            Some("/expiresAt"),
        ),
    ];
    for at in [
        json!(null),
        json!(in_ms(-1)),
        json!(in_ms(30 * DAY_MS + 60_000)),
        json!("soon"),
        json!(1e12),
        json!("2026-13-01T00:00:00Z"),
    ] {
        cases.push((json!({"expiresAt": at}).to_string(), 422, ends, Some("/expiresAt")));
    }
    for label in [json!(1), json!(["x"]), json!({}), json!(true), json!("é".repeat(256))] {
        cases.push((with("label", label), 422, Code::InvalidBody, Some("/label")));
    }
    for password in [json!(1), json!(["x"]), json!(false), json!(""), json!("x".repeat(1_025))] {
        cases.push((with("password", password), 422, Code::InvalidBody, Some("/password")));
    }
    for (body, status, code, at) in cases {
        let request = owner.on(server.http.post(format!("{}{path}", server.api)));
        let request = request.header("Content-Type", "application/json").body(body.clone());
        let answer = Problem::of(request.send().await.expect("an answer")).await;
        let status = StatusCode::from_u16(status).expect("a status");
        assert_eq!(Problem::check(answer, status, code, &body).pointer.as_deref(), at, "{body}");
    }
    let body = json!({"expiresAt": good});
    for (method, path, body) in [
        (Method::GET, format!("/location/{}/shares", id + 1), None),
        (Method::POST, format!("/location/{}/shares", id + 1), Some(&body)),
        (Method::DELETE, format!("/location/{}/shares/1", id + 1), None),
        (Method::DELETE, format!("{path}/1"), None),
    ] {
        let answer = Problem::of(owner.send(&server, method, &path, body).await).await;
        Problem::check(answer, StatusCode::NOT_FOUND, Code::NotFound, &path);
    }
    assert_eq!(shares(&server, &owner, id).await, Vec::<Value>::new());
    server.stop().await;
}

async fn a_password_is_asked_for_by_both_doors(db: Db) {
    let server = TestServer::start_with(db, LOCKED).await;
    let clients = Clients::start();
    let owner = Pass::user(OWNER);
    let id = owner.create(&server).await;
    let share = owner.share(&server, id, json!({"password": "correct horse"})).await;
    let secret = share["token"].as_str().expect("a token").to_owned();
    let path = format!("/location/{id}");
    for (password, is_right) in [
        (None, false),
        (Some("correct horse"), true),
        (Some("Correct horse"), false),
        (Some("correct horse battery"), false),
        (Some(""), false),
        // Once right is not always right.
        (None, false),
        (Some("correct horse"), true),
    ] {
        let pass = Pass::Share(secret.clone(), password.map(str::to_owned));
        let mut by_query = server.http.get(format!("{}{path}?share={secret}", server.api));
        if let Some(password) = password {
            by_query = by_query.header("X-Share-Password", password);
        }
        let answers =
            [pass.send(&server, Method::GET, &path, None).await, by_query.send().await.expect("an answer")];
        for answer in answers {
            match is_right {
                true => assert_eq!(answer.status(), StatusCode::OK, "{password:?}"),
                false => {
                    let (status, code) = (StatusCode::UNAUTHORIZED, Code::InvalidSharePassword);
                    Problem::check(Problem::of(answer).await, status, code, &format!("{password:?}"));
                }
            }
        }
        for kind in KINDS {
            let mut client = pass.open(&clients, kind, &server.gateway);
            if is_right {
                client.connected().await;
                client.join(id).await;
                client.disconnect();
            } else {
                assert_eq!(refusal(&mut client).await, "invalid_share_password", "{kind:?} {password:?}");
            }
        }
    }
    // Half in the handshake's `auth`, half in the query.
    let auth = json!({"password": "correct horse"}).to_string();
    assert_eq!(knock(&server, &[("share", &secret)], &HeaderMap::new(), &auth).await, Ok(()));
    // A link without one takes any.
    let open = owner.share(&server, id, json!({})).await;
    let pass = Pass::Share(open["token"].as_str().expect("a token").to_owned(), Some("whatever".to_owned()));
    pass.must(&server, Method::GET, &path, None).await;
    server.stop().await;
}

async fn a_share_link_that_ends_takes_its_guests_out(db: Db) {
    let server = TestServer::start_with(db, LOCKED).await;
    let clients = Clients::start();
    let owner = Pass::user(OWNER);
    let id = owner.create(&server).await;
    let (room, path) = (id.to_string(), format!("/location/{id}"));
    let mut resident = owner.connect(&clients, &server.gateway).await;
    resident.join(id).await;
    let stays = owner.guest(&server, id).await;
    let all_in = async |guest: &Pass| {
        let mut members = Vec::new();
        for kind in KINDS {
            let mut client = guest.connect_as(&clients, kind, &server.gateway).await;
            client.join(id).await;
            members.push(client);
        }
        members
    };
    let ends = in_ms(time_for(all_in(&stays)).await.as_millis() as i64);
    let guest = Pass::of(&owner.share(&server, id, json!({"expiresAt": ends})).await);
    let mut leaving = all_in(&guest).await;
    let mut other = stays.connect(&clients, &server.gateway).await;
    other.join(id).await;
    for client in &mut leaving {
        assert_eq!(client.event("room_closed").await, json!({"roomName": room, "reason": "expired"}));
    }
    assert!(in_ms(0) >= ends, "not before its time");
    owner.mv(&server, id).await;
    for client in [&mut resident, &mut other] {
        client.follow(id, 1, 2).await;
    }
    for client in &mut leaving {
        for payload in [json!({"locationId": id}), json!({"locationId": id, "since": 1})] {
            assert_eq!(client.ask("join_room", payload).await["code"], "not_found");
        }
        assert_eq!(client.drain().await, Vec::<Value>::new());
    }
    let refused = Problem::of(guest.send(&server, Method::GET, &path, None).await).await;
    Problem::check(refused, StatusCode::UNAUTHORIZED, Code::ShareExpired, "expired");
    for kind in KINDS {
        assert_eq!(refusal(&mut guest.open(&clients, kind, &server.gateway)).await, "share_expired");
    }
    assert_eq!(shares(&server, &owner, id).await.len(), 1, "what has ended is not listed");
    server.stop().await;
}

async fn in_open_mode_everybody_manages_share_links_and_nobody_needs_one(db: Db) {
    let server = TestServer::start(db).await;
    let clients = Clients::start();
    let anyone = Pass::Nothing;
    let id = anyone.create(&server).await;
    let share = anyone.share(&server, id, json!({"label": "open", "password": "x"})).await;
    assert_eq!(shares(&server, &anyone, id).await[0]["label"], "open");
    // Whoever shows one, or anything else, is anyone.
    for pass in [Pass::of(&share), Pass::Share("x".to_owned(), None), Pass::Token("x".to_owned())] {
        pass.mv(&server, id).await;
        for kind in KINDS {
            let mut client = pass.connect_as(&clients, kind, &server.gateway).await;
            client.join(id).await;
            client.ask_seeing("chat", json!({"message": 1, "roomName": id.to_string()})).await;
            client.disconnect();
        }
    }
    assert_eq!(shares(&server, &anyone, id).await[0]["uses"], 0);
    anyone.must(&server, Method::DELETE, &format!("/location/{id}/shares/{}", share["id"]), None).await;
    assert_eq!(shares(&server, &anyone, id).await, Vec::<Value>::new());
    server.stop().await;
}
