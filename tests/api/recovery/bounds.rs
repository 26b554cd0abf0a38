//! How much is replayed at most, and what is refused.

use super::*;

on_both_databases!(
    a_member_that_joins_with_since_is_sent_it_again,
    a_thousand_missed_updates_are_replayed_and_one_more_is_not,
    a_mebibyte_is_too_much_and_less_is_not,
    what_history_no_longer_has_is_not_recovered,
    who_has_an_answer_has_nothing_to_recover,
);

on_one_database!(what_is_no_version_is_refused_and_changes_nothing, without_an_ack_only_the_updates_come,);

async fn what_is_no_version_is_refused_and_changes_nothing(db: Db) {
    let server = TestServer::start(db).await;
    let clients = Clients::start();
    let id = server.create_at(0.5, 0.5).await;
    let said = json!({"roomName": id.to_string(), "message": "here"});
    for (generation, transport) in KINDS {
        let mut client = clients.connect_as(generation, transport, &server.gateway).await;
        for member in [false, true] {
            for since in [
                json!(-1),
                json!(1.5),
                json!("1"),
                json!(""),
                json!("null"),
                json!(true),
                json!(false),
                json!([1]),
                json!([]),
                json!({}),
                json!({"version": 1}),
                json!(9_007_199_254_740_992_u64),
                json!(1e300),
            ] {
                let payload = json!({"locationId": id, "since": since});
                let ack = client.ask("join_room", payload.clone()).await;
                assert_eq!(
                    (&ack["status"], &ack["code"]),
                    (&json!("error"), &json!("invalid_payload")),
                    "{since}"
                );
                client.emit("join_room", payload);
                assert_eq!(client.event("exception").await, ack, "{since}");
            }
            if member {
                break;
            }
            assert_eq!(client.ask("chat", said.clone()).await["code"], "not_in_room");
            client.join(id).await;
        }
        // Still in the room it was in, and once.
        server.move_to(id, 1.5, 1.5).await;
        assert!(client.event("chat").await["version"].is_u64());
        assert_eq!(client.drain().await, Vec::<Value>::new());
        client.disconnect();
    }
    server.stop().await;
}

async fn without_an_ack_only_the_updates_come(db: Db) {
    let server = TestServer::start(db).await;
    let clients = Clients::start();
    let id = server.create_at(0.5, 0.5).await;
    let mut features = moves(&server, id, 5).await;
    for (generation, transport) in KINDS {
        let mut client = clients.connect_as(generation, transport, &server.gateway).await;
        let head = features.len() as u64 + 1;
        for (since, missed) in [
            (1, &features[..]),
            (head, &[]),
            (head + 1, &features[features.len() - 1..]),
            (3, &features[2..]),
        ] {
            client.emit("join_room", json!({"locationId": id, "since": since}));
            for feature in missed {
                assert_eq!(client.event("chat").await, chat(feature), "{generation} {transport} {since}");
            }
            assert_eq!(client.drain().await, Vec::<Value>::new(), "{generation} {transport} {since}");
        }
        features.push(server.move_to(id, 0.5, head as f64 / 100.0).await);
        assert_eq!(client.event("chat").await, chat(&features[features.len() - 1]));
        client.disconnect();
    }
    server.stop().await;
}

async fn a_member_that_joins_with_since_is_sent_it_again(db: Db) {
    let server = TestServer::start(db).await;
    let clients = Clients::start();
    let id = server.create_at(0.5, 0.5).await;
    let mut all = vec![server.get(&format!("/location/{id}")).await.1];
    all.extend(moves(&server, id, 6).await);
    for (generation, transport) in KINDS {
        let mut client = clients.connect_as(generation, transport, &server.gateway).await;
        client.join(id).await;
        let head = all.len() as u64;
        for since in [3, 0, head, head - 1, 3] {
            assert_replayed(&mut client, id, since, &all[since as usize..]).await;
        }
        assert_not_recovered(&mut client, id, head + 7, &all[all.len() - 1]).await;
        all.push(server.move_to(id, 0.5, head as f64 / 100.0).await);
        assert_eq!(client.event("chat").await, chat(&all[all.len() - 1]));
        assert_eq!(client.drain().await, Vec::<Value>::new());
        // Joined many times, left once.
        client.leave(id).await;
        all.push(server.move_to(id, 0.5, head as f64 / 100.0).await);
        assert_eq!(client.drain().await, Vec::<Value>::new());
        client.disconnect();
    }
    server.stop().await;
}

/// Whether history would reach further back or only just so far.
async fn a_thousand_missed_updates_are_replayed_and_one_more_is_not(db: Db) {
    for kept in ["5000", "1000"] {
        let (server, _log) = Process::serve(db, &[("HISTORY_VERSIONS", kept), QUIET]).await;
        let clients = Clients::start();
        let id = server.create_at(0.5, 0.5).await;
        move_often(&server, id, 1_300).await;
        let history = server.history(id).await;
        let head = version(&history[history.len() - 1]);
        assert_eq!(head, 1_301);
        for live in [false, true] {
            let mut resident = clients.connect(&server.gateway).await;
            if live {
                resident.join(id).await;
            }
            let (generation, transport) = if live { ("4", "websocket") } else { ("2", "polling") };
            let mut client = clients.connect_as(generation, transport, &server.gateway).await;
            let thousand = &history[history.len() - 1_000..];
            assert_replayed(&mut client, id, head - 1_000, thousand).await;
            for missed in [1_001, 1_100, head] {
                assert_not_recovered(&mut client, id, head - missed, &thousand[999]).await;
            }
            client.leave(id).await;
            resident.leave(id).await;
        }
        server.stop().await;
    }
}

async fn a_mebibyte_is_too_much_and_less_is_not(db: Db) {
    let server = TestServer::start(db).await;
    let clients = Clients::start();
    let id = server.create_at(0.5, 0.5).await;
    let luggage = "l".repeat(60_000);
    let mut all = vec![server.get(&format!("/location/{id}")).await.1];
    all.push(server.update(&server.api, &json!({"id": id, "properties": {"luggage": luggage}})).await);
    all.extend(moves(&server, id, 38).await);
    for (generation, transport) in KINDS {
        let mut client = clients.connect_as(generation, transport, &server.gateway).await;
        for since in [40, 39, 26] {
            assert_replayed(&mut client, id, since, &all[since as usize..]).await;
        }
        for since in [10, 0] {
            assert_not_recovered(&mut client, id, since, &all[39]).await;
        }
        client.disconnect();
    }
    // One alone: a body just under the limit, and the properties there were.
    let positions: Vec<_> = (0..49_000).map(|n| [f64::from(n % 90) + 0.1234567, 0.12345]).collect();
    let geometry = json!({"type": "LineString", "coordinates": positions});
    let length = geometry.to_string().len();
    assert!((1_000_000..1_040_000).contains(&length), "{length}");
    let head = server.update(&server.api, &json!({"id": id, "geometry": geometry})).await;
    let mut client = clients.connect(&server.gateway).await;
    assert_not_recovered(&mut client, id, 40, &head).await;
    assert_replayed(&mut client, id, 41, &[]).await;
    server.stop().await;
}

async fn what_history_no_longer_has_is_not_recovered(db: Db) {
    let server = TestServer::start_with(db, &[("HISTORY_VERSIONS", "10")]).await;
    let clients = Clients::start();
    let id = server.create_at(0.5, 0.5).await;
    move_often(&server, id, 300).await;
    let page = server.history_until(id, |page| page.features.len() <= 110).await;
    let features = &page.features;
    let head = &features[features.len() - 1];
    for live in [false, true] {
        let mut resident = clients.connect(&server.gateway).await;
        if live {
            resident.join(id).await;
        }
        let mut client = clients.connect(&server.gateway).await;
        for since in [0, 1, 100, 301 - 112] {
            assert_not_recovered(&mut client, id, since, head).await;
        }
        for missed in [10, 9, 1, 0] {
            let since = 301 - missed as u64;
            assert_replayed(&mut client, id, since, &features[features.len() - missed..]).await;
        }
        resident.leave(id).await;
        client.leave(id).await;
    }
    // Of a location that is gone there is nothing to recover.
    assert_eq!(server.delete(id).await, StatusCode::NO_CONTENT);
    let mut client = clients.connect(&server.gateway).await;
    for since in [0, 300, 301, 302] {
        assert_eq!(rejoin(&mut client, id, since).await["code"], "not_found");
    }
    server.stop().await;
}

/// A few writers move other locations until `act` is done.
async fn under_other_load<T>(server: &TestServer, act: impl AsyncFnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    let write = async |writer: u32| {
        let id = server.create_at(0.5, 0.5).await;
        let mut turn = 0;
        while !done.load(Ordering::Relaxed) {
            server.move_to(id, f64::from(writer), f64::from(turn % 90)).await;
            turn += 1;
        }
    };
    let act = async {
        let result = act().await;
        done.store(true, Ordering::Relaxed);
        result
    };
    tokio::join!(act, join_all((0..8).map(write))).0
}

async fn who_has_an_answer_has_nothing_to_recover(db: Db) {
    const TURNS: u64 = 40;
    let (server, _log) = Process::serve(db, &[QUIET]).await;
    let clients = Clients::start();
    let answer_and_join = async |(generation, transport)| {
        // One room is live all the time, the other only while somebody comes with an answer.
        let ids = [server.create_at(0.5, 0.5).await, server.create_at(0.5, 0.5).await];
        let mut resident = clients.connect(&server.gateway).await;
        resident.join(ids[0]).await;
        let mut client = clients.connect_as(generation, transport, &server.gateway).await;
        for turn in 0..TURNS {
            for id in ids {
                let answer = server.move_to(id, 0.5, turn as f64).await;
                let ack = rejoin(&mut client, id, version(&answer)).await;
                assert_eq!(ack, recovery(id, version(&answer), true), "{generation} {transport}");
                client.leave(id).await;
            }
        }
        resident.follow(ids[0], 1, 1 + TURNS).await;
    };
    let kinds = [("4", "websocket"), ("4", "polling"), ("2", "websocket")];
    under_other_load(&server, async || join_all(kinds.map(answer_and_join)).await).await;
    server.stop().await;
}
