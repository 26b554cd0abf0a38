//! Tokens that end or are replaced while their sockets are connected.

use super::*;

on_one_database!(
    a_token_that_ends_ends_its_socket,
    a_fresh_token_keeps_the_socket_and_its_rooms,
    a_fresh_token_without_the_role_ends_what_only_the_role_gave,
);

/// As long as a token is taken after its end.
const LEEWAY_MS: i64 = 30_000;

/// A token that is taken for the time given, at most a second less.
fn brief(user: u64, is_admin: bool, ms: i64) -> String {
    mint_for(ms - LEEWAY_MS, user, None, is_admin)
}

async fn a_token_that_ends_ends_its_socket(db: Db) {
    let _share = machine::quarter().await;
    let (server, _log) = Process::serve(db, &[KEY, QUIET]).await;
    let clients = Clients::start();
    let id = create(&server, 0).await;
    admit(&server, id, MEMBER).await;
    let load = Load::start(&server, id, 50);
    let lasting = time_for(Reader::all(&clients, &server.gateway, &Pass::user(MEMBER))).await;
    let ends = Instant::now() + lasting;
    let by = Pass::Token(brief(MEMBER, false, lasting.as_millis() as i64));
    let mut readers = Reader::all(&clients, &server.gateway, &by).await;
    for reader in &mut readers {
        reader.emit("join_room", &json!({"locationId": id})).await;
        // Somebody else's, of nobody, and one that has ended: nothing of it counts.
        for (token, code) in [
            (token(STRANGER), "invalid_token"),
            ("x.y.z".to_owned(), "invalid_token"),
            (brief(MEMBER, false, -1_000), "token_expired"),
        ] {
            let (mut ack, _) = reader.ask("authenticate", json!({"token": token})).await;
            if ack == json!(id.to_string()) {
                // Of the join.
                let Seen::Ack(_, next) = next_ack(reader).await else { unreachable!() };
                ack = next;
            }
            assert_eq!(ack["code"], code, "{ack}");
        }
    }
    // At once: who reads late is cut, and is not told why.
    join_all(readers.into_iter().enumerate().map(async |(at, mut reader)| {
        let (mut last, mut count) = (None, 0);
        let refusal = loop {
            match reader.next().await {
                Seen::Position(position) => {
                    assert!(last.is_none_or(|last| position.version == last + 1));
                    last = Some(position.version);
                    count += 1;
                }
                Seen::Exception(body) => break body,
                other => panic!("{at}: {other:?}"),
            }
        };
        assert!(count > 10, "{at}: {count} positions before the end");
        assert_eq!((&refusal["status"], &refusal["code"]), (&json!("error"), &json!("token_expired")));
        assert!(Instant::now() >= ends - Duration::from_millis(1_100), "{at}: too early");
        reader.gone().await;
    }))
    .await;
    assert!(Instant::now() <= ends + WITHDRAWN, "too late: {:?}", Instant::now() - ends);
    for kind in KINDS {
        assert_eq!(refusal(&mut by.open(&clients, kind, &server.gateway)).await, "token_expired");
    }
    load.stop().await;
    server.stop().await;
}

async fn next_ack(reader: &mut Reader) -> Seen {
    loop {
        let seen = reader.next().await;
        if let Seen::Ack(..) = seen {
            return seen;
        }
    }
}

async fn a_fresh_token_keeps_the_socket_and_its_rooms(db: Db) {
    let _share = machine::quarter().await;
    let (server, _log) = Process::serve(db, &[KEY, QUIET]).await;
    let clients = Clients::start();
    let id = create(&server, 0).await;
    admit(&server, id, MEMBER).await;
    let lasting = time_for(Reader::all(&clients, &server.gateway, &Pass::user(MEMBER))).await;
    let ends = Instant::now() + lasting;
    let by = Pass::Token(brief(MEMBER, false, lasting.as_millis() as i64));
    let mut audience = Audience::new();
    let mut readers = Reader::all(&clients, &server.gateway, &by).await;
    let fresh = token(MEMBER);
    for reader in &mut readers {
        let before = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock").as_secs();
        let (ack, _) = reader.ask("authenticate", json!({"token": fresh})).await;
        assert!(ack["exp"].as_u64().is_some_and(|exp| exp.abs_diff(before + 3_600) <= 10), "{ack}");
    }
    audience.add(0, readers, id);
    let load = Load::start(&server, id, 50);
    sleep_until(ends + WITHDRAWN).await;
    let head = load.stop().await;
    audience.last.send_replace(Some(head));
    moved(&server, id).await;
    for (_, mut story) in audience.stories().await {
        assert_eq!(story.closed, None);
        story.check_dense();
        assert!(story.reader.drain().await.is_empty());
    }
    server.stop().await;
}

async fn a_fresh_token_without_the_role_ends_what_only_the_role_gave(db: Db) {
    let _share = machine::quarter().await;
    let (server, _log) = Process::serve(db, &[KEY, QUIET]).await;
    let clients = Clients::start();
    let admin = Pass::Token(mint(MEMBER, None, true));
    // In one of them somebody has asked for rights before, in the other nobody.
    let (asked, own, unasked) =
        (create(&server, 0).await, create(&server, 0).await, create(&server, 0).await);
    admit(&server, own, MEMBER).await;
    admit(&server, asked, STRANGER).await;
    let mut other = Reader::websocket(&server.gateway, &Pass::user(STRANGER)).await;
    other.join(asked).await;
    for (at, mut reader) in Reader::all(&clients, &server.gateway, &admin).await.into_iter().enumerate() {
        for id in [asked, own, unasked] {
            reader.join(id).await;
        }
        let (ack, before) = reader.ask("authenticate", json!({"token": token(MEMBER)})).await;
        assert!(ack["exp"].is_u64(), "{ack}");
        let mut closed: Vec<u64> = before
            .into_iter()
            .map(|seen| match seen {
                Seen::RoomClosed(body) => {
                    assert_eq!(body["reason"], "revoked");
                    body["roomName"].as_str().and_then(|name| name.parse().ok()).expect("an id")
                }
                other => panic!("{at}: {other:?}"),
            })
            .collect();
        closed.sort_unstable();
        assert_eq!(closed, [asked, unasked], "{at}");
        for id in [asked, unasked, own] {
            moved(&server, id).await;
        }
        // The last to be moved: whatever came of the others would be before it.
        match reader.next().await {
            Seen::Position(position) => assert_eq!(position.room, own),
            seen => panic!("{at}: {seen:?}"),
        }
        assert_eq!(reader.refused(asked).await, "not_found");
        // And back again.
        reader.ask("authenticate", json!({"token": mint(MEMBER, None, true)})).await;
        reader.join(asked).await;
        reader.ask("leave_room", json!({"locationId": asked})).await;
    }
    server.stop().await;
}
