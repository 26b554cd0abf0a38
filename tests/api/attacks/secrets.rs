//! Share links, secrets that are replaced, and what must be neither said nor logged.

use super::*;

on_both_databases!(a_share_link_opens_nothing_but_its_location,);

async fn a_share_link_opens_nothing_but_its_location(db: Db) {
    let server = TestServer::start_with(db, LOCKED).await;
    let clients = Clients::start();
    let (owner, mallory) = (Pass::user(OWNER), Pass::user(MALLORY));
    let (id, other) = (owner.create(&server).await, owner.create(&server).await);
    let theirs = mallory.create(&server).await;
    owner.mv(&server, id).await;
    let share = owner.share(&server, id, json!({})).await;
    let (secret, number) = (share["token"].as_str().expect("a token"), &share["id"]);
    let guest = Pass::of(&share);
    for path in [
        format!("/location/{other}"),
        format!("/location/{other}/history"),
        format!("/location/{theirs}"),
        format!("/location/{other}?share={secret}"),
    ] {
        let refused = Problem::of(guest.send(&server, Method::GET, &path, None).await).await;
        Problem::check(refused, StatusCode::NOT_FOUND, Code::NotFound, &path);
    }
    // By way of one's own location, that of another cannot be ended.
    for path in [format!("/location/{theirs}/shares/{number}"), format!("/location/{id}/shares/{number}")] {
        let refused = Problem::of(mallory.send(&server, Method::DELETE, &path, None).await).await;
        Problem::check(refused, StatusCode::NOT_FOUND, Code::NotFound, &path);
    }
    // Whatever else is known of it.
    let hash = {
        use sha2::{Digest, Sha256};
        Sha256::digest(secret)
    };
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let swapped: String = secret
        .chars()
        .map(|c| if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() })
        .collect();
    let like = [
        number.to_string(),
        hex,
        format!("{secret}="),
        format!("{secret}A"),
        secret[1..].to_owned(),
        swapped,
        "%".to_owned(),
        "' OR 1=1 --".to_owned(),
        "null".to_owned(),
        String::new(),
        token(OWNER),
        "x".repeat(60_000),
    ];
    for share in like {
        let path = format!("/location/{id}");
        let refused =
            Problem::of(Pass::Share(share.clone(), None).send(&server, Method::GET, &path, None).await).await;
        let refused = Problem::check(refused, StatusCode::UNAUTHORIZED, Code::InvalidShare, &share);
        assert!(share.len() < 9 || !refused.detail.contains(&share), "{refused:?}");
        let said = knock(&server, &[("share", &share)], &HeaderMap::new(), "").await;
        assert_eq!(said, Err("invalid_share".to_owned()), "{share:.100}");
    }
    for kind in KINDS {
        let mut client = guest.connect_as(&clients, kind, &server.gateway).await;
        for (event, payload, refused) in [
            ("join_room", json!({"locationId": other}), "not_found"),
            ("join_room", json!({"locationId": other, "since": 0}), "not_found"),
            ("join_room", json!({"locationId": theirs, "userId": MALLORY}), "not_found"),
            ("chat", json!({"message": 1, "roomName": other.to_string()}), "not_in_room"),
            ("authenticate", json!({"token": token(1)}), "invalid_token"),
            ("authenticate", json!({"token": mint(1, None, true)}), "invalid_token"),
            ("authenticate", json!({"token": secret}), "invalid_token"),
        ] {
            let ack = client.ask(event, payload.clone()).await;
            assert_eq!(code(&ack), refused, "{kind:?} {event} {payload}");
        }
        // Nobody, whatever it says.
        client.ask("join", json!({"userId": OWNER})).await;
        let ack = client.ask("join_room", json!({"locationId": id, "since": 0, "userId": OWNER})).await;
        assert_eq!(ack, json!({"roomName": id.to_string(), "version": 2, "recovered": false}), "{kind:?}");
        assert_eq!(client.event("chat").await["version"], 2, "{kind:?}");
        assert_eq!(client.drain().await, Vec::<Value>::new(), "{kind:?}");
        client.disconnect();
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_was_replaced_counts_until_it_is_taken_away() {
    const NEW: &str = "newer-newer-newer-newer-newer-newer";
    let claims = json!({"sub": OWNER, "exp": in_seconds(3_600)});
    let hs256 = json!({"alg": "HS256"});
    let [old, new] = [SECRET, NEW].map(|secret| signed(&hs256, &claims, secret.as_bytes()));
    let (yes, no) = (Ok(()), Err("invalid_token".to_owned()));
    let mut server = TestServer::start_with(Db::Sqlite, LOCKED).await;
    let id = Pass::Token(old.clone()).create(&server).await;
    let both = format!("{NEW} {SECRET}");
    for (secrets, of_old, of_new) in [(SECRET, &yes, &no), (&both, &yes, &yes), (NEW, &no, &yes)] {
        server = TestServer::start_on(server.halt().await, &[("JWT_SECRET", secrets)]).await;
        for (token, expected) in [(&old, of_old), (&new, of_new)] {
            let said = tried(&server, id, token).await;
            assert_eq!(said.len(), 4);
            assert!(said.iter().all(|said| said == expected), "{said:?}");
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_said_or_logged_has_a_secret_or_anothers_socket() {
    const PASSWORD: &str = "correct-horse-battery-staple";
    let settings = [LOCKED, &[("RUST_LOG", "trace")]].concat();
    let (server, log) = Process::serve(Db::Sqlite, &settings).await;
    let clients = Clients::start();
    let owner = Pass::Token(mint(OWNER, Some("Ada"), false));
    let id = owner.create(&server).await;
    let room = id.to_string();
    let share = owner.share(&server, id, json!({"password": PASSWORD, "label": "a label"})).await;
    let secret = share["token"].as_str().expect("a token").to_owned();
    let guest = Pass::Share(secret.clone(), Some(PASSWORD.to_owned()));
    let admin = Pass::admin(1);
    let bad = Pass::Token(expired(MALLORY));
    let wrong = Pass::Share(secret.clone(), Some("wrong-wrong-wrong".to_owned()));
    let mut said = String::new();

    for pass in [&owner, &guest, &admin, &bad, &wrong] {
        for path in
            [format!("/location/{id}"), format!("/location/{id}/history"), format!("/location/{id}/shares")]
        {
            said += &answer(pass.send(&server, Method::GET, &path, None).await).await.1.to_string();
        }
    }
    let path = format!("/location/{id}?share={secret}");
    let with_password = server.http.get(format!("{}{path}", server.api)).header("X-Share-Password", PASSWORD);
    let (status, body) = answer(with_password.send().await.expect("an answer")).await;
    assert_eq!(status, StatusCode::OK);
    said += &body.to_string();

    let mut sockets = Vec::new();
    for kind in KINDS {
        for pass in [&owner, &guest, &admin] {
            let mut client = pass.open(&clients, kind, &server.gateway);
            let own_id = client.connected().await;
            client.emit_for_ack("join", json!({"userId": 7}));
            client.emit_for_ack("join_room", json!({"locationId": id}));
            client.emit_for_ack("chat", json!({"message": "hello", "roomName": room}));
            client.emit_for_ack("authenticate", json!({"token": mint(OWNER, None, false)}));
            client.emit_for_ack("authenticate", json!({"token": expired(OWNER)}));
            client.emit("no_such_event", json!({"token": token(OWNER)}));
            client.emit("join_room", json!({"locationId": secret}));
            sockets.push((client, own_id, String::new()));
        }
        for pass in [&bad, &wrong] {
            let mut client = pass.open(&clients, kind, &server.gateway);
            said += &refusal(&mut client).await;
        }
        let query = format!("{}/?token={}&share={secret}", server.gateway, token(OWNER));
        let mut client = clients.open(kind.0, &query, json!({"transports": [kind.1]}));
        client.connected().await;
        client.kill();
    }
    owner.mv(&server, id).await;
    for (client, _, seen) in &mut sockets {
        *seen += &json!(client.drain().await).to_string();
    }
    owner.must(&server, Method::DELETE, &format!("/location/{id}/shares/{}", share["id"]), None).await;
    sockets[0].0.kill();
    for (client, _, seen) in &mut sockets[1..] {
        *seen += &json!(client.drain().await).to_string();
        client.disconnect();
    }
    server.stop().await;
    let log: Vec<String> = log.whole().await.iter().map(Value::to_string).collect();
    assert!(log.iter().any(|line| line.contains("TRACE")) && log.len() > 100, "{} lines", log.len());

    let signature = |token: &str| token.rsplit_once('.').expect("a token").1.to_owned();
    let claims = |token: &str| token.split('.').nth(1).expect("a token").to_owned();
    let mut hidden = vec![
        SECRET.to_owned(),
        PASSWORD.to_owned(),
        secret.clone(),
        "wrong-wrong-wrong".to_owned(),
        "$argon2".to_owned(),
    ];
    for pass in [&owner, &admin, &bad] {
        let Pass::Token(token) = pass else { unreachable!() };
        hidden.extend([signature(token), claims(token)]);
    }
    hidden.extend(sockets.iter().map(|(_, own_id, _)| own_id.clone()));
    for line in &log {
        let found = hidden.iter().find(|hidden| line.contains(hidden.as_str()));
        assert!(found.is_none(), "{found:?} in {line}");
    }
    // Whoever tries a thing knows it: what is said has nothing else.
    let of_others = |text: &str, own: &str| {
        hidden.iter().find(|hidden| *hidden != own && text.contains(hidden.as_str())).cloned()
    };
    assert_eq!(of_others(&said, ""), None);
    for (_, own_id, seen) in &sockets {
        assert!(seen.contains(own_id.as_str()), "told by `join`");
        assert_eq!(of_others(seen, own_id), None);
    }
}
