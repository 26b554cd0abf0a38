//! Ids that are almost ids, and members of bodies that only the server may set.

use super::*;

on_one_database!(forged_members_of_bodies_and_payloads_change_nothing, an_id_that_is_almost_one_is_none,);

async fn forged_members_of_bodies_and_payloads_change_nothing(db: Db) {
    let server = TestServer::start_with(db, LOCKED).await;
    let clients = Clients::start();
    let (owner, mallory) = (Pass::user(OWNER), Pass::user(MALLORY));
    let id = owner.create(&server).await;
    let (path, room) = (format!("/location/{id}"), id.to_string());
    let before = owner.get(&server, &path).await.1;

    // Whoever it says made or moved it: who asks did.
    let forged = json!({
        "type": "Feature", "geometry": point(1.5, 1.5), "userId": OWNER, "owner": OWNER, "role": "admin",
        "updatedBy": OWNER, "version": 77, "__proto__": {"userId": OWNER, "isAdmin": true},
        "constructor": {"prototype": {"role": "admin"}},
        "properties": {
            "userId": OWNER, "updatedBy": OWNER, "version": 77, "createdAt": "2000-01-01T00:00:00.000Z",
            "updatedAt": "2000-01-01T00:00:00.000Z", "__proto__": {"version": 9}, "constructor": "x",
        },
    });
    let made = mallory.must(&server, Method::POST, "/location", Some(forged.clone())).await;
    let made = &made["data"]["location"];
    let own = made["id"].as_u64().expect("an id");
    let moved = mallory
        .must(
            &server,
            Method::PUT,
            &format!("/location/{own}"),
            Some({
                let mut body = forged.clone();
                body["id"] = own.into();
                body
            }),
        )
        .await;
    for (feature, version) in [(made, 1), (&moved["data"]["updatedLocationResult"], 2)] {
        let properties = &feature["properties"];
        assert_eq!(
            (&properties["userId"], &properties["updatedBy"], &properties["version"]),
            (&json!(MALLORY), &json!(MALLORY), &json!(version)),
            "{feature}"
        );
        assert_ne!(properties["createdAt"], "2000-01-01T00:00:00.000Z");
        assert_ne!(properties["updatedAt"], "2000-01-01T00:00:00.000Z");
    }
    let mut theirs = forged.clone();
    theirs["id"] = id.into();
    for (method, path, body) in [
        (Method::PUT, "/location".to_owned(), Some(theirs.clone())),
        (Method::PUT, format!("{path}?userId={OWNER}"), Some(theirs)),
        (Method::DELETE, format!("{path}?userId={OWNER}"), None),
        (Method::GET, format!("{path}?userId={OWNER}"), None),
        (Method::GET, format!("{path}/history?userId={OWNER}"), None),
        (Method::GET, format!("{path}/members?userId={OWNER}"), None),
        (Method::GET, format!("{path}/shares?userId={OWNER}"), None),
        (Method::PUT, format!("{path}/members/{MALLORY}"), Some(json!({"role": "editor", "userId": OWNER}))),
        (Method::DELETE, format!("{path}/members/{OWNER}?userId={OWNER}"), None),
    ] {
        let about = format!("{method} {path}");
        let refused = Problem::of(mallory.send(&server, method, &path, body.as_ref()).await).await;
        Problem::check(refused, StatusCode::NOT_FOUND, Code::NotFound, &about);
    }
    let (_, list) = mallory.get(&server, &format!("/location?userId={OWNER}")).await;
    assert_eq!((&list["total"], &list["features"][0]["id"]), (&json!(1), &json!(own)), "{list}");
    for role in
        [json!("owner"), json!("guest"), json!("admin"), json!("__proto__"), json!("constructor"), json!(2)]
    {
        let body = json!({"role": role});
        let path = format!("/location/{own}/members/{OWNER}");
        let refused = Problem::of(mallory.send(&server, Method::PUT, &path, Some(&body)).await).await;
        Problem::check(refused, StatusCode::UNPROCESSABLE_ENTITY, Code::InvalidMember, &role.to_string());
    }

    let mut victim = owner.connect(&clients, &server.gateway).await;
    victim.join(id).await;
    for kind in KINDS {
        let mut client = mallory.connect_as(&clients, kind, &server.gateway).await;
        let ack =
            client.ask("join", json!({"userId": OWNER, "userName": "the owner", "role": "admin"})).await;
        assert_eq!(ack["userId"], MALLORY, "{kind:?}");
        for (event, payload, refused) in [
            ("join_room", json!({"locationId": id, "userId": OWNER}), "not_found"),
            ("join_room", json!({"locationId": id, "since": 0, "userId": OWNER}), "not_found"),
            ("join_room", json!({"locationId": id, "caller": {"role": "admin"}, "version": 1}), "not_found"),
            ("join_room", json!({"__proto__": {"locationId": id}}), "invalid_payload"),
            ("join_room", json!({"locationId": own, "roomName": room, "__proto__": {"locationId": id}}), ""),
            ("chat", json!({"message": "me", "roomName": room, "userId": OWNER}), "not_in_room"),
            ("chat", json!({"message": "me", "roomName": room, "version": 2}), "not_in_room"),
            ("chat", json!({"message": "me", "roomName": "__proto__"}), "invalid_payload"),
            ("chat", json!({"message": "me", "roomName": "constructor"}), "invalid_payload"),
            ("authenticate", json!({"token": token(OWNER)}), "invalid_token"),
            ("authenticate", json!({"token": mint(OWNER, None, true)}), "invalid_token"),
            ("authenticate", json!({"token": "x"}), "invalid_token"),
            ("authenticate", json!({"token": ""}), "invalid_token"),
            ("authenticate", json!({"token": [token(MALLORY)]}), "invalid_payload"),
            ("authenticate", json!({"userId": OWNER}), "invalid_payload"),
            ("authenticate", json!({"token": expired(MALLORY)}), "token_expired"),
            ("join_room", json!({"locationId": id}), "not_found"),
            ("__proto__", json!({"locationId": id}), "unknown_event"),
            ("constructor", json!({"locationId": id}), "unknown_event"),
            ("toString", json!({}), "unknown_event"),
            ("hasOwnProperty", json!({}), "unknown_event"),
            ("room_closed", json!({"roomName": room, "reason": "deleted"}), "unknown_event"),
            ("exception", json!({"code": "token_expired"}), "unknown_event"),
        ] {
            let (ack, seen) = client.ask_seeing(event, payload.clone()).await;
            let about = format!("{kind:?} {event} {payload}");
            match refused {
                "" => assert_eq!(ack, own.to_string(), "{about}"),
                refused => assert_eq!(code(&ack), refused, "{about}"),
            }
            assert!(!json!(seen).to_string().contains(&format!(r#""roomName":"{room}""#)), "{about}");
            client.drain().await;
        }
        // In one's own room as oneself.
        let said = json!({
            "message": {"type": "Feature", "id": own}, "roomName": own.to_string(), "userId": OWNER,
            "version": 9, "__proto__": {"version": 9},
        });
        let relayed = json!({
            "userId": MALLORY, "message": {"type": "Feature", "id": own}, "roomName": own.to_string(),
        });
        assert_eq!(client.ask_seeing("chat", said).await.0, relayed, "{kind:?}");
        let fresh = client.ask_seeing("authenticate", json!({"token": token(MALLORY)})).await.0;
        assert!(fresh["exp"].as_i64().is_some_and(|exp| exp > in_seconds(3_500)), "{kind:?} {fresh}");
        assert_eq!(code(&client.ask_seeing("join_room", json!({"locationId": id})).await.0), "not_found");
        client.disconnect();
    }
    assert_eq!(victim.drain().await, Vec::<Value>::new());
    assert_eq!(owner.get(&server, &path).await.1, before);
    server.stop().await;
}

async fn an_id_that_is_almost_one_is_none(db: Db) {
    let server = TestServer::start_with(db, LOCKED).await;
    let clients = Clients::start();
    let owner = Pass::user(OWNER);
    let id = owner.create(&server).await;
    owner.grant(&server, id, 1, "viewer").await;
    let share = owner.share(&server, id, json!({})).await["id"].as_u64().expect("an id");
    let alike = |id: u64| {
        [
            format!("0{id}"),
            format!("+{id}"),
            format!("-{id}"),
            format!("{id}e0"),
            format!("{id}.0"),
            format!("0x{id}"),
            format!("{id}%20"),
            format!("%20{id}"),
            format!("{id}%00"),
            format!("%3{id}"),
            format!("{id},{id}"),
            format!("[{id}]"),
            "0".to_owned(),
            "9223372036854775808".to_owned(),
            format!("1844674407370955161{}", 6 + id % 4),
            "9007199254740992".to_owned(),
            "__proto__".to_owned(),
            "constructor".to_owned(),
            "*".to_owned(),
            "null".to_owned(),
            "١".to_owned(),
            format!("{id}%20OR%201=1"),
            format!("{id}%27--"),
        ]
    };
    let before = owner.get(&server, &format!("/location/{id}/members")).await.1;
    for name in alike(id) {
        for (method, rest, body) in [
            (Method::GET, "", None),
            (Method::GET, "/history", None),
            (Method::PUT, "", Some(json!({"geometry": point(1.5, 1.5)}))),
            (Method::DELETE, "", None),
            (Method::GET, "/members", None),
            (Method::PUT, "/members/5", Some(json!({"role": "editor"}))),
            (Method::DELETE, "/members/1", None),
            (Method::GET, "/shares", None),
            (Method::POST, "/shares", Some(json!({"expiresAt": in_ms(60_000)}))),
        ] {
            let path = format!("/location/{name}{rest}");
            let refused = Problem::of(owner.send(&server, method.clone(), &path, body.as_ref()).await).await;
            Problem::check(refused, StatusCode::NOT_FOUND, Code::NotFound, &format!("{method} {path}"));
        }
    }
    for name in alike(share) {
        let path = format!("/location/{id}/shares/{name}");
        let refused = Problem::of(owner.send(&server, Method::DELETE, &path, None).await).await;
        Problem::check(refused, StatusCode::NOT_FOUND, Code::NotFound, &path);
    }
    for name in alike(1).into_iter().filter(|name| !["0", "01"].contains(&name.as_str())) {
        let path = format!("/location/{id}/members/{name}");
        for (method, body) in [(Method::PUT, Some(json!({"role": "editor"}))), (Method::DELETE, None)] {
            let answer = Problem::of(owner.send(&server, method.clone(), &path, body.as_ref()).await).await;
            let problem = answer.unwrap_or_else(|e| panic!("{method} {path}: {e}"));
            assert_eq!(problem.code, "invalid_user_id", "{method} {path}");
        }
    }
    for body in [
        json!({"id": format!("0{id}")}),
        json!({"id": format!("{id} ")}),
        json!({"id": [id]}),
        json!({"id": {"id": id}}),
        json!({"id": -1}),
        json!({"id": id as f64 + 0.5}),
        json!({"id": true}),
        json!({"id": null}),
        json!({"id": 0}),
        json!({"id": 9_223_372_036_854_775_808_u64}),
        json!({"id": "__proto__"}),
        json!({"__proto__": {"id": id}}),
    ] {
        let mut put = body.clone();
        put["properties"] = json!({});
        let refused = Problem::of(owner.send(&server, Method::PUT, "/location", Some(&put)).await).await;
        Problem::check(refused, StatusCode::UNPROCESSABLE_ENTITY, Code::InvalidId, &body.to_string());
    }
    for text in [format!("{id}.5"), format!("{id}.0000001"), format!("1{id}e-1")] {
        let put = owner.on(server.http.put(format!("{}/location", server.api)));
        let put = put.header("Content-Type", "application/json");
        let answer =
            put.body(format!(r#"{{"id":{text},"properties":{{}}}}"#)).send().await.expect("an answer");
        let refused = Problem::of(answer).await;
        Problem::check(refused, StatusCode::UNPROCESSABLE_ENTITY, Code::InvalidId, &text);
    }
    assert_eq!(owner.get(&server, &format!("/location/{id}/members")).await.1, before);
    let (_, shares) = owner.get(&server, &format!("/location/{id}/shares")).await;
    assert_eq!(shares["shares"].as_array().map(Vec::len), Some(1), "{shares}");
    assert_eq!(owner.get(&server, &format!("/location/{id}")).await.1["properties"]["version"], 1);

    // By a stranger: as wrong as by anybody.
    let mut stranger = Pass::user(MALLORY).connect(&clients, &server.gateway).await;
    for name in [
        json!(format!("{id} ")),
        json!(format!("0{id}")),
        json!(format!("{id}e0")),
        json!(format!("+{id}")),
        json!(format!("0x{id}")),
        json!(-1),
        json!(9_223_372_036_854_775_808_u64),
        json!([id]),
        json!({"id": id}),
        json!("__proto__"),
        json!(1.5),
        json!(null),
        json!(true),
    ] {
        for (event, member) in
            [("join_room", "locationId"), ("leave_room", "locationId"), ("chat", "roomName")]
        {
            let ack = stranger.ask(event, json!({member: name, "message": 1})).await;
            assert_eq!(code(&ack), "invalid_payload", "{event} {name}");
        }
    }
    assert_eq!(stranger.drain().await, Vec::<Value>::new());
    server.stop().await;
}
