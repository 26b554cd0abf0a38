//! Rights that end while somebody joins, through another server, or while the database is away.

use super::*;

on_both_databases!(a_join_under_way_does_not_outlive_the_right);

/// Until a server notices what another one has changed.
const NOTICED: Duration = Duration::from_secs(5);

/// Members join, in cold rooms and in live ones, while they are removed.
async fn a_join_under_way_does_not_outlive_the_right(db: Db) {
    const ROUNDS: u64 = 4;
    const MAX_ROUNDS: u64 = 12;
    const ROOMS: usize = 24;
    let _share = machine::half().await;
    let (server, _log) = Process::serve(db, &[KEY, QUIET]).await;
    let rooms = join_all((0..ROOMS).map(|_| create(&server, 10_000))).await;
    // A past that takes a while to read.
    for _ in 0..30 {
        join_all(rooms.iter().map(|id| moved(&server, *id))).await;
    }
    let mut owner = Reader::websocket(&server.gateway, &Pass::user(OWNER)).await;
    for id in &rooms[ROOMS / 2..] {
        owner.join(*id).await;
    }
    let (mut entered, mut refused, mut cut_off) = (0, 0, 0);
    // Removals of all rooms wait for one another.
    let mut reach_us = if db == Db::MySql { 600_000 } else { 80_000 };
    for round in 0..MAX_ROUNDS {
        let over = watch::Sender::new(None);
        let (removed, mut removals) = mpsc::unbounded_channel();
        let race = async |at: usize| {
            let (id, user) = (rooms[at], 1_000 + round * 100 + at as u64);
            admit(&server, id, user).await;
            let mut sockets = Vec::new();
            for _ in 0..3 {
                sockets.push(Reader::websocket(&server.gateway, &Pass::user(user)).await);
            }
            let removal = async {
                let ended = delete(&server, &format!("/location/{id}/members/{user}")).await;
                removed.send(ended).expect("a race");
            };
            let joins = sockets.iter_mut().zip(0..).map(async |(socket, n)| {
                let mut random = Random((round * 100 + at as u64) * 10 + n);
                sleep(Duration::from_micros(random.below(reach_us) as u64)).await;
                let (ack, before) = socket.ask("join_room", json!({"locationId": id, "since": 1})).await;
                assert!(before.is_empty(), "before the ack: {before:?}");
                (ack, socket.linger_or_end(over.subscribe()).await)
            });
            (id, join(removal, join_all(joins)).await.1)
        };
        let finish = async {
            for _ in 0..ROOMS {
                sleep_until(removals.recv().await.expect("a race") + WITHDRAWN).await;
            }
            join_all(rooms.iter().map(|id| moved(&server, *id))).await;
            over.send_replace(Some(0));
        };
        let (races, ()) = join(join_all((0..ROOMS).map(race)), finish).await;
        for (id, answers) in races {
            for (ack, after) in answers {
                let mut last = None;
                let (mut closed, was_in) = (false, ack["roomName"].as_str() == Some(id.to_string().as_str()));
                for seen in after {
                    match seen {
                        Seen::Position(position) if was_in && !closed => last = Some(position.version),
                        Seen::RoomClosed(body) if was_in && !closed => {
                            assert_eq!(body["reason"], "revoked");
                            closed = true;
                        }
                        // On a busy machine it may not have read what it missed before the right ended.
                        Seen::End if was_in && !closed => {
                            closed = true;
                            cut_off += 1;
                        }
                        other => panic!("{id}, {ack}: {other:?}"),
                    }
                }
                assert!(was_in || ack["code"] == "not_found", "{ack}");
                assert_eq!(closed, was_in, "{id}, round {round}: left inside, at {last:?}");
                if was_in { entered += 1 } else { refused += 1 }
            }
        }
        match (entered, refused) {
            (0, _) => reach_us /= 2,
            // On a busy machine removals take longer.
            (_, 0) => reach_us *= 2,
            _ if round + 1 >= ROUNDS => break,
            _ => {}
        }
    }
    println!("{entered} entered, {cut_off} of them were cut off; {refused} were refused");
    assert!(entered > 0 && refused > 0, "no race: {entered} entered, {refused} were refused");
    server.stop().await;
}

/// The one that hears of a change is not the one that has the sockets.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_withdrawn_through_one_server_ends_on_the_other() {
    let _share = machine::quarter().await;
    let (server, _log) = Process::serve(Db::MySql, &[KEY, QUIET]).await;
    let other = Process::start(&[("DATABASE_URL", &server.database.url), KEY, QUIET]).await;
    let clients = Clients::start();
    let [by_member, by_share, by_location] =
        [create(&server, 0).await, create(&server, 0).await, create(&server, 0).await];
    for id in [by_member, by_location] {
        admit(&server, id, MEMBER).await;
    }
    admit(&server, by_member, STRANGER).await;
    let (path, guest) = share(&server, by_share, Duration::from_secs(600)).await;
    let mut stays = Reader::websocket(&other.gateway, &Pass::user(STRANGER)).await;
    stays.join(by_member).await;
    let member = Pass::user(MEMBER);
    let ways = [
        (by_member, &member, format!("/location/{by_member}/members/{MEMBER}"), "revoked"),
        (by_share, &guest, path, "revoked"),
        (by_location, &member, format!("/location/{by_location}"), "deleted"),
    ];
    join_all(ways.map(async |(id, by, path, reason)| {
        let mut readers = Reader::all(&clients, &other.gateway, by).await;
        for reader in &mut readers {
            reader.join(id).await;
        }
        let ended = delete(&server, &path).await;
        // At once: who reads late is cut.
        join_all(readers.iter_mut().map(async |reader| {
            match reader.next().await {
                Seen::RoomClosed(body) => {
                    assert_eq!(body, json!({"roomName": id.to_string(), "reason": reason}));
                }
                seen => panic!("{seen:?}"),
            }
            assert!(ended.elapsed() <= NOTICED, "{:?}", ended.elapsed());
            assert_eq!(reader.refused(id).await, "not_found");
        }))
        .await;
        if reason == "revoked" {
            moved(&server, id).await;
        }
        // By now the room on the other server has the update, if there is one.
        sleep_until(ended + NOTICED).await;
        for reader in &mut readers {
            let seen = reader.drain().await;
            assert!(seen.is_empty(), "{seen:?}");
        }
    }))
    .await;
    match stays.next().await {
        Seen::Position(position) => assert_eq!((position.room, position.version), (by_member, 2)),
        seen => panic!("{seen:?}"),
    }
    other.signal("TERM").await;
    assert_eq!(other.ended().await, Some(0));
    server.stop().await;
}

/// A server whose database can be cut off.
async fn behind_a_proxy() -> (Proxy, TestServer, Log) {
    let database = TestDatabase::create(Db::MySql).await;
    let proxy = Proxy::start(&database, None).await;
    let settings = [("DATABASE_URL", proxy.url.as_str()), KEY, QUIET];
    let (server, log) = Process::serve_on(database, &settings).await;
    (proxy, server, log)
}

/// Who was known when the database went is known.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_database_a_live_room_knows_its_members() {
    let (proxy, server, _log) = behind_a_proxy().await;
    let clients = Clients::start();
    let (id, removed) = (create(&server, 0).await, MEMBER + 1);
    admit(&server, id, MEMBER).await;
    admit(&server, id, removed).await;
    let (_, guest) = share(&server, id, Duration::from_secs(600)).await;
    let mut resident = Reader::websocket(&server.gateway, &Pass::user(MEMBER)).await;
    resident.join(id).await;
    delete(&server, &format!("/location/{id}/members/{removed}")).await;
    let [mut member, mut owner, mut stranger, mut former] = [
        Reader::websocket(&server.gateway, &Pass::user(MEMBER)).await,
        Reader::websocket(&server.gateway, &Pass::user(OWNER)).await,
        Reader::websocket(&server.gateway, &Pass::user(STRANGER)).await,
        Reader::websocket(&server.gateway, &Pass::user(removed)).await,
    ];
    let mut visitor = Reader::websocket(&server.gateway, &guest).await;

    let addr = proxy.cut().await;
    for reader in [&mut member, &mut owner, &mut visitor] {
        assert_eq!(reader.join(id).await, 1);
    }
    for reader in [&mut stranger, &mut former] {
        assert_eq!(reader.refused(id).await, "not_found");
    }
    let path = &format!("/location/{id}");
    let answers = [
        (Pass::user(MEMBER), StatusCode::OK, Value::Null),
        (Pass::user(OWNER), StatusCode::OK, Value::Null),
        (Pass::user(STRANGER), StatusCode::NOT_FOUND, json!("not_found")),
        (Pass::user(removed), StatusCode::NOT_FOUND, json!("not_found")),
        (guest.clone(), StatusCode::SERVICE_UNAVAILABLE, json!("storage_unavailable")),
    ]
    .map(async |(by, status, code)| {
        let (got, body) = by.get(&server, path).await;
        assert_eq!((got, &body["code"]), (status, &code), "{body}");
    });
    let refusals = KINDS.map(async |kind| {
        assert_eq!(refusal(&mut guest.open(&clients, kind, &server.gateway)).await, "storage_unavailable");
    });
    tokio::join!(join_all(answers), join_all(refusals));

    let proxy = Proxy::start(&server.database, Some(addr)).await;
    for reader in [&mut resident, &mut member, &mut owner, &mut visitor] {
        assert!(reader.drain().await.is_empty());
    }
    while server.get("/readyz").await.0 != StatusCode::OK {}
    let version = moved(&server, id).await;
    for reader in [&mut resident, &mut member, &mut owner, &mut visitor] {
        match reader.next().await {
            Seen::Position(position) => assert_eq!(position.version, version),
            seen => panic!("{seen:?}"),
        }
    }
    server.stop().await;
    proxy.cut().await;
}

/// Rights that cannot be looked up are none: what only the role gave ends with it.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_database_who_is_admin_no_more_is_not_left_inside() {
    let _share = machine::quarter().await;
    let (proxy, server, _log) = behind_a_proxy().await;
    let (asked, unasked) = (create(&server, 0).await, create(&server, 0).await);
    admit(&server, asked, STRANGER).await;
    let mut other = Reader::websocket(&server.gateway, &Pass::user(STRANGER)).await;
    other.join(asked).await;
    let mut admin = Reader::websocket(&server.gateway, &Pass::Token(mint(MEMBER, None, true))).await;
    for id in [asked, unasked] {
        admin.join(id).await;
    }
    let addr = proxy.cut().await;
    let (ack, before) = admin.ask("authenticate", json!({"token": token(MEMBER)})).await;
    let is_taken = ack["exp"].is_u64();
    assert!(is_taken || ack["code"] == "storage_unavailable", "{ack}");
    let proxy = Proxy::start(&server.database, Some(addr)).await;
    while server.get("/readyz").await.0 != StatusCode::OK {}
    for id in [asked, unasked] {
        moved(&server, id).await;
    }
    // Either the fresh token counts, with all that follows, or nothing of it does.
    if is_taken {
        let seen = admin.drain().await;
        assert!(!seen.iter().any(|seen| matches!(seen, Seen::Position(_))), "{ack}: {before:?}, {seen:?}");
    } else {
        for _ in [asked, unasked] {
            let seen = admin.next().await;
            assert!(matches!(seen, Seen::Position(_)), "{ack}: {before:?}, {seen:?}");
        }
        // Whether the fresh one counts is seen by what it does not give.
        admin.join(unasked).await;
        let (ack, before) = admin.ask("authenticate", json!({"token": token(MEMBER)})).await;
        assert!(ack["exp"].is_u64(), "{ack}");
        assert_eq!(before.len(), 2, "{before:?}");
        assert_eq!(admin.refused(unasked).await, "not_found");
    }
    server.stop().await;
    proxy.cut().await;
}
