//! Changes that are refused among others that are not.

use super::*;

on_both_databases!(
    a_row_that_the_database_refuses_fails_its_own_caller_only,
    refusals_among_good_changes_are_their_own_callers,
    locations_are_made_amid_updates,
    a_delete_amid_updates_ends_them_and_leaves_nothing,
);

/// Makes the database itself refuse rows with the mark in them: history's by a trigger, locations' by a
/// constraint or a trigger.
async fn refuse_poison(database: &TestDatabase, table: &str) {
    let connection = database.open().await;
    let sql = match (connection.get_database_backend(), table) {
        (DatabaseBackend::MySql, "history") => {
            "CREATE TRIGGER refuse_poison BEFORE INSERT ON history FOR EACH ROW \
             IF NEW.properties LIKE '%poison%' THEN \
             SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'secretive'; END IF"
        }
        (DatabaseBackend::MySql, _) => {
            "ALTER TABLE location ADD CONSTRAINT secretive CHECK (properties NOT LIKE '%poison%')"
        }
        (_, "history") => {
            "CREATE TRIGGER refuse_poison BEFORE INSERT ON history WHEN NEW.properties LIKE '%poison%' \
             BEGIN SELECT RAISE(ABORT, 'secretive'); END"
        }
        _ => {
            "CREATE TRIGGER refuse_poison BEFORE UPDATE ON location WHEN NEW.properties LIKE '%poison%' \
             BEGIN SELECT RAISE(ABORT, 'secretive'); END"
        }
    };
    connection.execute_unprepared(sql).await.expect(sql);
    connection.close().await.expect("close");
}

async fn a_row_that_the_database_refuses_fails_its_own_caller_only(db: Db) {
    noise::expect(&[FAILED]);
    for table in ["history", "location"] {
        let (server, _log) = Process::serve(db, &[QUIET]).await;
        refuse_poison(&server.database, table).await;
        let clients = Clients::start();
        let ids = make(&server, 10).await;
        let mut members = members(&clients, &server, &ids).await;
        let write = async |caller: usize| {
            let mut good = Vec::new();
            for turn in 0..8 {
                let bad = (caller + turn).is_multiple_of(5);
                // Among good ones in history. `location` has only what the last one left, so there
                // they must not be followed by a good one.
                let id = match (table, bad) {
                    ("location", true) => ids[8 + turn % 2],
                    ("location", false) => ids[(caller + turn * 3) % 8],
                    _ => ids[(caller + turn * 3) % ids.len()],
                };
                let body = json!({
                    "id": id,
                    "geometry": point(caller as f64 + 0.5, turn as f64 + 0.5),
                    "properties": {"mark": if bad { "poison" } else { "sound" }},
                });
                let reply = server.send(Method::PUT, "/location", Some(&body)).await;
                if bad {
                    let problem = Problem::of(reply).await;
                    let status = StatusCode::INTERNAL_SERVER_ERROR;
                    let problem = Problem::check(problem, status, Code::Internal, table);
                    assert!(!problem.detail.contains("secretive"), "{problem:?}");
                } else {
                    let (status, reply) = answer(reply).await;
                    assert_eq!(status, StatusCode::CREATED, "{reply}");
                    good.push((id, reply["data"]["updatedLocationResult"].clone()));
                }
            }
            good
        };
        let good = join_all((0..40).map(write)).await.concat();
        assert_eq!(good.len(), 40 * 8 * 4 / 5);
        for id in &ids {
            let own = good.iter().filter(|(moved, _)| moved == id).map(|(_, feature)| feature.clone());
            server.assert_history(*id, own.collect()).await;
        }
        assert_sent(&server, &mut members, &ids).await;
        server.stop().await;
    }
}

async fn refusals_among_good_changes_are_their_own_callers(db: Db) {
    let (server, _log) = Process::serve(db, &[QUIET]).await;
    let clients = Clients::start();
    let ids = make(&server, 6).await;
    let mut members = members(&clients, &server, &ids).await;
    let half = "h".repeat(40_000);
    let mut good = Vec::new();
    for id in &ids {
        let body = json!({"id": id, "properties": {"half": half}});
        good.push((*id, server.update(&server.api, &body).await));
    }
    let write = async |caller: usize| {
        let mut good = Vec::new();
        for turn in 0..10 {
            let id = ids[(caller + turn) % ids.len()];
            let geometry = point(caller as f64 + 0.5, turn as f64 + 0.5);
            let (body, refusal) = match (caller + turn * 3) % 7 {
                // Together with what is there already.
                0 => (json!({"id": id, "geometry": geometry, "properties": {"other": half}}), Some(422)),
                1 => (json!({"id": ids[5] + 1 + turn as u64, "geometry": geometry}), Some(404)),
                _ => (json!({"id": id, "geometry": geometry}), None),
            };
            let reply = server.send(Method::PUT, "/location", Some(&body)).await;
            match refusal {
                Some(status) => {
                    let code = if status == 422 { Code::PropertiesTooLarge } else { Code::NotFound };
                    let status = StatusCode::from_u16(status).expect("a status");
                    Problem::check(Problem::of(reply).await, status, code, "amid others");
                }
                None => {
                    let (status, reply) = answer(reply).await;
                    assert_eq!(status, StatusCode::CREATED, "{reply}");
                    good.push((id, reply["data"]["updatedLocationResult"].clone()));
                }
            }
        }
        good
    };
    good.extend(join_all((0..42).map(write)).await.concat());
    assert_eq!(good.len(), ids.len() + 42 * 10 * 5 / 7);
    for id in &ids {
        let own = good.iter().filter(|(moved, _)| moved == id).map(|(_, feature)| feature.clone());
        server.assert_history(*id, own.collect()).await;
    }
    assert_newest_sent(&server, &mut members, &ids).await;
    server.stop().await;
}

async fn locations_are_made_amid_updates(db: Db) {
    let (server, _log) = Process::serve(db, &[QUIET]).await;
    let ids = make(&server, 4).await;
    let apis = [server.api.as_str()];
    let load = Load::new(&server, &apis, &ids);
    let made = async {
        let create = async |n: usize| {
            let mut made = Vec::new();
            for turn in 0..10 {
                let properties = json!({"n": n, "turn": turn});
                let body = json!({"geometry": point(n as f64, 0.5), "properties": properties, "userId": n});
                let (status, reply) = server.post(&body).await;
                assert_eq!(status, StatusCode::CREATED, "{reply}");
                let feature = &reply["data"]["location"];
                assert_eq!(feature["properties"]["turn"], turn);
                assert_eq!(feature["properties"]["userId"], n);
                assert_eq!(feature["geometry"], body["geometry"]);
                made.push(feature.clone());
            }
            made
        };
        join_all((0..20).map(create)).await.concat()
    };
    let ((), made) = tokio::join!(load.run(30, |own| own < 20), made);
    load.check().await;
    let by_id: BTreeMap<_, _> =
        made.into_iter().map(|feature| (feature["id"].as_u64().expect("an id"), feature)).collect();
    assert_eq!(by_id.len(), 200, "an id was given twice");
    for (id, made) in by_id {
        assert_eq!(server.history(id).await, [made]);
    }
    server.stop().await;
}

async fn a_delete_amid_updates_ends_them_and_leaves_nothing(db: Db) {
    const CALLERS: usize = 60;
    let (server, _log) = Process::serve(db, &[QUIET]).await;
    let clients = Clients::start();
    let ids = make(&server, 12).await;
    let stays = server.create_at(0.5, 0.5).await;
    let mut members = members(&clients, &server, &ids).await;
    let answered = watch::Sender::new(0);
    let write = async |caller: usize| {
        let mut committed = Vec::new();
        for (turn, id) in ids.iter().cycle().skip(caller).take(3 * ids.len()).enumerate() {
            let body = json!({"id": id, "geometry": point(caller as f64 + 0.5, turn as f64 + 0.5)});
            let (status, reply) = server.put(&body).await;
            match status {
                StatusCode::CREATED => {
                    committed.push((*id, version(&reply["data"]["updatedLocationResult"])));
                }
                StatusCode::NOT_FOUND => assert_eq!(reply["code"], "not_found"),
                other => panic!("{other}: {reply}"),
            }
            answered.send_modify(|answered| *answered += 1);
        }
        committed
    };
    // Each by two callers at once, of whom one is too late, while everybody writes.
    let delete = async {
        for (n, id) in ids.iter().enumerate() {
            answered.subscribe().wait_for(|answered| *answered >= 100 * (n + 1)).await.expect("writers");
            let (a, b) = tokio::join!(server.delete(*id), server.delete(*id));
            let mut both = [a, b];
            both.sort();
            assert_eq!(both, [StatusCode::NO_CONTENT, StatusCode::NOT_FOUND]);
        }
    };
    let (committed, ()) = tokio::join!(join_all((0..CALLERS).map(write)), delete);
    let committed = committed.concat();
    for (id, member) in ids.iter().zip(&mut members) {
        let mut own: Vec<_> =
            committed.iter().filter(|(moved, _)| moved == id).map(|(_, version)| *version).collect();
        own.sort_unstable();
        assert_eq!(own, (2..2 + own.len() as u64).collect::<Vec<_>>(), "{id}");
        member.follow(*id, 1, 1 + own.len() as u64).await;
        assert_eq!(member.event("room_closed").await["roomName"], id.to_string());
        assert_eq!(member.drain().await, Vec::<Value>::new());
        for path in [format!("/location/{id}"), format!("/location/{id}/history")] {
            assert_eq!(server.get(&path).await.0, StatusCode::NOT_FOUND, "{path}");
        }
    }
    let (_, list) = server.get("/location?bbox=-180,-90,180,90").await;
    assert_eq!(list["features"].as_array().map(Vec::len), Some(1), "{list}");
    assert_eq!(server.history(stays).await.len(), 1);
    server.stop().await;
}
