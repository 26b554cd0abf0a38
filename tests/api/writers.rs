//! Many writers at once: they share transactions, and nobody notices except by the clock.

use std::{
    cell::Cell,
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use georoom::domain::error::Code;
use reqwest::{Method, StatusCode};
use sea_orm::{ConnectionTrait, DatabaseBackend, DatabaseConnection, DbErr, Statement, TransactionTrait};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::{
    locations::{geometries, same},
    on_both_databases,
    support::{
        Db, TestDatabase, TestServer, administrator, answer,
        clients::{Client, Clients},
        history::version,
        load::Load,
        noise::{self, DATABASE_AWAY, FAILED},
        point,
        polling::Polling,
        problem::Problem,
        process::Process,
        proxy::Proxy,
        truth::Random,
    },
};

on_both_databases!(
    two_servers_on_one_database_count_the_same_versions,
    answers_history_and_broadcasts_agree,
    a_row_that_the_database_refuses_fails_its_own_caller_only,
    refusals_among_good_changes_are_their_own_callers,
    locations_are_made_amid_updates,
    a_delete_amid_updates_ends_them_and_leaves_nothing,
    text_of_every_kind_is_kept_as_it_was_sent,
    every_geometry_is_kept_bit_for_bit_amid_others,
    a_large_body_among_small_ones_fails_nobody,
    as_many_large_bodies_as_come_are_all_committed,
);

/// A line for each of thousands of requests helps nobody.
const QUIET: (&str, &str) = ("RUST_LOG", "warn,georoom::server=info");
/// Longer than anything here takes on a busy machine; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// New locations, lowest id first.
async fn make(server: &TestServer, count: usize) -> Vec<u64> {
    let mut ids = join_all((0..count).map(|_| server.create_at(0.5, 0.5))).await;
    ids.sort_unstable();
    ids
}

/// A client in each of the rooms.
async fn members(clients: &Clients, server: &TestServer, ids: &[u64]) -> Vec<Client> {
    let mut members = Vec::new();
    for id in ids {
        let mut member = clients.connect(&server.gateway).await;
        assert_eq!(member.join(*id).await["version"], 1);
        members.push(member);
    }
    members
}

/// Each member was sent its room's history after the creation, and nothing else.
async fn assert_sent(server: &TestServer, members: &mut [Client], ids: &[u64]) {
    for (member, id) in members.iter_mut().zip(ids) {
        let history = server.history(*id).await;
        let sent = member.follow(*id, 1, history.len() as u64).await;
        for (chat, kept) in sent.iter().zip(&history[1..]) {
            assert_eq!((&chat["message"], &chat["userId"]), (kept, &kept["properties"]["updatedBy"]));
        }
        assert_eq!(member.drain().await, Vec::<Value>::new());
    }
}

/// The same where versions are large: what was sent is of the history and ends with its newest.
async fn assert_newest_sent(server: &TestServer, members: &mut [Client], ids: &[u64]) {
    for (member, id) in members.iter_mut().zip(ids) {
        let history = server.history(*id).await;
        for chat in member.follow_newest(*id, 1, history.len() as u64).await {
            let kept = &history[chat["version"].as_u64().expect("a version") as usize - 1];
            assert_eq!((&chat["message"], &chat["userId"]), (kept, &kept["properties"]["updatedBy"]));
        }
        assert_eq!(member.drain().await, Vec::<Value>::new());
    }
}

async fn two_servers_on_one_database_count_the_same_versions(db: Db) {
    let (server, _log) = Process::serve(db, &[QUIET]).await;
    let second = Process::start(&[("DATABASE_URL", &server.database.url), QUIET]).await;
    let ids = make(&server, 20).await;
    let apis = [server.api.as_str(), &second.api];
    let load = Load::new(&server, &apis, &ids);
    load.run(64, |own| own < 30).await;
    assert_eq!(load.check().await.answered, 64 * 30);
    assert_eq!(server.history_from(&second.api, ids[0]).await, server.history(ids[0]).await);
    second.signal("TERM").await;
    assert_eq!(second.ended().await, Some(0));
    server.stop().await;
}

/// Ends every connection of a database, whatever it is doing; returns how many there were.
async fn kill_connections(admin: &DatabaseConnection, database: &str) -> usize {
    // Not information_schema.processlist: that fails on a statement with bytes in it.
    let list = Statement::from_string(DatabaseBackend::MySql, "SHOW PROCESSLIST");
    let mut killed = 0;
    for row in admin.query_all_raw(list).await.expect("the connections") {
        let db: Option<String> = row.try_get("", "db").expect("a database");
        if db.as_deref() == Some(database) {
            let id: i64 = row.try_get("", "Id").expect("an id");
            // It may have gone by itself.
            killed += usize::from(admin.execute_unprepared(&format!("KILL {id}")).await.is_ok());
        }
    }
    killed
}

/// Waits until no dead connection is left among those that a server reads with, each of which may be
/// found out by a 503.
async fn until_read(server: &TestServer, id: u64) {
    let started = Instant::now();
    let mut in_a_row = 0;
    while in_a_row < 40 {
        let (status, body) = server.get(&format!("/location/{id}")).await;
        in_a_row = if status == StatusCode::OK { in_a_row + 1 } else { 0 };
        assert!([StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE].contains(&status), "{status} {body}");
        assert!(started.elapsed() < PATIENCE, "reads do not come back");
    }
}

/// A KILL may hit a COMMIT before it is carried out, or its answer after that: who tries again blindly
/// applies an update twice, who does not loses one.
#[tokio::test(flavor = "multi_thread")]
async fn connections_killed_under_load_lose_nothing_and_repeat_nothing() {
    noise::expect(&DATABASE_AWAY);
    let settings = [("HISTORY_VERSIONS", "1000000"), QUIET];
    let (server, _log) = Process::serve(Db::MySql, &settings).await;
    let second =
        Process::start(&[&[("DATABASE_URL", server.database.url.as_str())], &settings[..]].concat()).await;
    let ids = make(&server, 20).await;
    let apis = [server.api.as_str(), &second.api];
    let load = Load::new(&server, &apis, &ids);
    let admin = administrator().await;
    let done = AtomicBool::new(false);
    let kill = async {
        let mut random = Random(1);
        let mut killed = 0;
        for _ in 0..30 {
            load.answers(1 + random.below(120) as u64).await;
            killed += kill_connections(&admin, &server.database.name).await;
        }
        load.answers(200).await;
        done.store(true, Ordering::Relaxed);
        killed
    };
    let ((), killed) = tokio::join!(load.run(64, |_| !done.load(Ordering::Relaxed)), kill);
    assert!(killed >= 30, "{killed}");
    until_read(&server, ids[0]).await;
    load.check().await;
    admin.close().await.expect("close");
    second.signal("TERM").await;
    assert_eq!(second.ended().await, Some(0));
    server.stop().await;
}

/// The room hears of every version all the same, also of those whose callers could not be told.
#[tokio::test(flavor = "multi_thread")]
async fn commits_lost_under_load_are_neither_repeated_nor_forgotten() {
    let database = TestDatabase::create(Db::MySql).await;
    let proxy = Proxy::start(&database, None).await;
    let settings = [("DATABASE_URL", proxy.url.as_str()), ("HISTORY_VERSIONS", "1000000"), QUIET];
    let (server, _log) = Process::serve_on(database, &settings).await;
    let clients = Clients::start();
    let ids = make(&server, 12).await;
    let mut members = members(&clients, &server, &ids).await;
    let apis = [server.api.as_str()];
    let load = Load::new(&server, &apis, &ids);
    let done = AtomicBool::new(false);
    let lose = async {
        proxy.lose_one_in(4);
        let mut losses = proxy.losses();
        let waited = timeout(PATIENCE, losses.wait_for(|losses| *losses >= 40)).await;
        drop(waited.expect("commits are lost and writing goes on").expect("a proxy"));
        proxy.lose_one_in(0);
        load.answers(200).await;
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(load.run(48, |_| !done.load(Ordering::Relaxed)), lose);
    load.check().await;
    assert_sent(&server, &mut members, &ids).await;
    server.stop().await;
    proxy.cut().await;
}

async fn answers_history_and_broadcasts_agree(db: Db) {
    let (server, _log) = Process::serve(db, &[QUIET]).await;
    let clients = Clients::start();
    let ids = make(&server, 5).await;
    let mut members = members(&clients, &server, &ids).await;
    let apis = [server.api.as_str()];
    let load = Load::new(&server, &apis, &ids);
    load.run(64, |own| own < 20).await;
    let report = load.check().await;
    assert_eq!((report.answered, report.refused), (64 * 20, 0));
    assert_sent(&server, &mut members, &ids).await;
    server.stop().await;
}

/// On a disk that is slow to commit everybody who has come meanwhile goes with the next commit.
#[tokio::test(flavor = "multi_thread")]
async fn changes_that_wait_share_a_commit() {
    const CALLERS: usize = 256;
    const EACH: u64 = 5;
    let database = TestDatabase::create(Db::MySql).await;
    let proxy = Proxy::start(&database, None).await;
    let settings = [("DATABASE_URL", proxy.url.as_str()), QUIET];
    let (server, _log) = Process::serve_on(database, &settings).await;
    let ids = make(&server, 64).await;
    let apis = [server.api.as_str()];
    let load = Load::new(&server, &apis, &ids);
    proxy.slow_down(Duration::from_millis(20));
    let before = proxy.counts();
    load.run(CALLERS, |own| own < EACH).await;
    let after = proxy.counts();
    proxy.slow_down(Duration::ZERO);
    let updates = CALLERS as u64 * EACH;
    let (commands, commits) = (after.0 - before.0, after.1 - before.1);
    assert!((1..=updates / 16).contains(&commits), "{commits} commits for {updates} updates");
    assert!(commands <= updates / 4, "{commands} commands for {updates} updates");
    assert_eq!(load.check().await.answered, updates);
    server.stop().await;
    proxy.cut().await;
}

/// Nobody waits for company: alone, a change is committed as it comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_alone_waits_for_no_other() {
    const TIMES: u64 = 50;
    let database = TestDatabase::create(Db::MySql).await;
    let proxy = Proxy::start(&database, None).await;
    let settings = [("DATABASE_URL", proxy.url.as_str()), QUIET];
    let (server, _log) = Process::serve_on(database, &settings).await;
    let id = server.create_at(0.5, 0.5).await;
    let (_, before) = proxy.counts();
    let mut quickest = Duration::MAX;
    for turn in 0..TIMES {
        let started = Instant::now();
        server.move_to(id, 0.5, turn as f64).await;
        quickest = quickest.min(started.elapsed());
    }
    let (_, after) = proxy.counts();
    assert_eq!(after - before, TIMES);
    // Far more than it takes, and less than it is worth waiting for company.
    assert!(quickest < Duration::from_millis(40), "{quickest:?}");
    server.stop().await;
    proxy.cut().await;
}

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

/// What InnoDB says of itself.
async fn innodb_status(connection: &impl ConnectionTrait) -> String {
    let statement = Statement::from_string(DatabaseBackend::MySql, "SHOW ENGINE INNODB STATUS");
    let row = connection.query_one_raw(statement).await.expect("a status").expect("a row");
    row.try_get("", "Status").expect("text")
}

/// Waits until somebody waits for a lock on a row of `location`.
async fn until_waited_for(connection: &impl ConnectionTrait, database: &str) {
    // Not information_schema.innodb_trx: whoever asks that often enough is told the same for ever.
    let lock = format!("of table `{database}`.`location` trx id");
    let started = Instant::now();
    loop {
        let status = innodb_status(connection).await;
        let transactions = status.split("\nTRANSACTIONS\n").nth(1).expect("transactions");
        if transactions.lines().any(|line| line.contains(&lock) && line.ends_with(" waiting")) {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "the server does not want these rows: {status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_somebody_else_has_locked_are_waited_for() {
    let (server, _log) = Process::serve(Db::MySql, &[QUIET]).await;
    let ids = make(&server, 4).await;
    let apis = [server.api.as_str()];
    let load = Load::new(&server, &apis, &ids);
    let connection = server.database.open().await;
    let done = AtomicBool::new(false);
    let lock = async {
        for turn in 0..12 {
            let tx = connection.begin().await.expect("a transaction");
            // Read, and written without a change.
            let sql = match turn % 2 {
                0 => format!("SELECT id FROM location WHERE id IN ({}, {}) FOR UPDATE", ids[1], ids[3]),
                _ => format!("UPDATE location SET owner_id = owner_id WHERE id = {}", ids[2]),
            };
            tx.execute_unprepared(&sql).await.expect(&sql);
            until_waited_for(&tx, &server.database.name).await;
            tx.commit().await.expect("commit");
            load.answers(20).await;
        }
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(load.run(32, |_| !done.load(Ordering::Relaxed)), lock);
    load.check().await;
    connection.close().await.expect("close");
    server.stop().await;
}

/// Whoever wants them is told so, and nobody else is held up for long.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_stays_locked_is_refused_and_the_others_go_on() {
    noise::expect(&[FAILED]);
    let (server, _log) = Process::serve(Db::MySql, &[QUIET]).await;
    let ids = make(&server, 6).await;
    let (locked, others) = (ids[2], [ids[0], ids[1], ids[3], ids[4], ids[5]]);
    let apis = [server.api.as_str()];
    let load = Load::new(&server, &apis, &others);
    let connection = server.database.open().await;
    let tx = connection.begin().await.expect("a transaction");
    let sql = format!("SELECT id FROM location WHERE id = {locked} FOR UPDATE");
    tx.execute_unprepared(&sql).await.expect(&sql);
    let done = AtomicBool::new(false);
    let body = json!({"id": locked, "geometry": point(1.5, 1.5)});
    let refused = async {
        for method in [Method::PUT, Method::PUT, Method::DELETE] {
            let path = format!("/location/{locked}");
            let sent = Some(&body).filter(|_| method == Method::PUT);
            let answer = timeout(Duration::from_secs(10), server.send(method, &path, sent));
            let answer = answer.await.expect("an answer in time");
            assert!(answer.headers().contains_key("retry-after"));
            let status = StatusCode::SERVICE_UNAVAILABLE;
            Problem::check(Problem::of(answer).await, status, Code::StorageUnavailable, "locked");
            // What is not there is no more there than before.
            let (status, _) = server.put(&json!({"id": ids[5] + 1, "geometry": point(1.5, 1.5)})).await;
            assert_eq!(status, StatusCode::NOT_FOUND);
            load.answers(10).await;
        }
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(load.run(16, |_| !done.load(Ordering::Relaxed)), refused);
    tx.rollback().await.expect("rollback");
    assert_eq!(load.check().await.refused, 0);
    assert_eq!(version(&server.update(&server.api, &body).await), 2);
    assert_eq!(server.history(locked).await.len(), 2);
    connection.close().await.expect("close");
    server.stop().await;
}

/// The server holds a low row and waits for a high one, which somebody holds who now asks for the low
/// one. InnoDB rolls back whoever has changed less, and that is the server.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_deadlock_is_no_callers_concern() {
    let (server, _log) = Process::serve(Db::MySql, &[QUIET]).await;
    let ids = make(&server, 8).await;
    let clients = Clients::start();
    let mut members = members(&clients, &server, &ids).await;
    let apis = [server.api.as_str()];
    let load = Load::new(&server, &apis, &ids);
    let connection = server.database.open().await;
    for sql in [
        "CREATE TABLE ballast (id BIGINT PRIMARY KEY AUTO_INCREMENT, n BIGINT NOT NULL)",
        "INSERT INTO ballast (n) SELECT 0 FROM information_schema.collations LIMIT 200",
        "INSERT INTO ballast (n) SELECT 0 FROM ballast CROSS JOIN (SELECT 1 UNION ALL SELECT 2) AS twice",
    ] {
        connection.execute_unprepared(sql).await.expect(sql);
    }
    let done = AtomicBool::new(false);
    let won = Cell::new(0);
    let fight = async || {
        let tx = connection.begin().await?;
        tx.execute_unprepared("UPDATE ballast SET n = n + 1").await?;
        let lock = |id| format!("UPDATE location SET owner_id = owner_id WHERE id = {id}");
        tx.execute_unprepared(&lock(ids[7])).await?;
        until_waited_for(&tx, &server.database.name).await;
        for id in ids[..7].iter().rev() {
            tx.execute_unprepared(&lock(*id)).await?;
        }
        tx.commit().await?;
        won.set(won.get() + 1);
        Ok::<_, DbErr>(())
    };
    let fights = async {
        for _ in 0..10 {
            // Lost by this side after all: the next time.
            let _ = fight().await;
            load.answers(20).await;
        }
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(load.run(32, |_| !done.load(Ordering::Relaxed)), fights);
    let status = innodb_status(&connection).await;
    let deadlock = status.split("LATEST DETECTED DEADLOCK").nth(1).expect("a deadlock");
    assert!(deadlock.contains("LOCK WAIT"), "{deadlock}");
    assert!(won.get() > 0, "this side lost every time");
    load.check().await;
    assert_sent(&server, &mut members, &ids).await;
    connection.close().await.expect("close");
    server.stop().await;
}

/// SQLite has one lock, for the whole file.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_somebody_else_has_locked_is_waited_for() {
    let (server, _log) = Process::serve(Db::Sqlite, &[QUIET]).await;
    let ids = make(&server, 4).await;
    let apis = [server.api.as_str()];
    let load = Load::new(&server, &apis, &ids);
    let connection = server.database.open().await;
    let done = AtomicBool::new(false);
    let lock = async {
        for _ in 0..8 {
            connection.execute_unprepared("BEGIN IMMEDIATE").await.expect("the lock");
            // So long it is held: nobody outside sees who waits for it.
            sleep(Duration::from_millis(150)).await;
            connection.execute_unprepared("COMMIT").await.expect("commit");
            load.answers(20).await;
        }
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(load.run(32, |_| !done.load(Ordering::Relaxed)), lock);
    assert_eq!(load.check().await.refused, 0);
    connection.close().await.expect("close");
    server.stop().await;
}

/// Text that is something else to SQL, to JSON or to a character set.
fn texts() -> Vec<String> {
    let mut texts: Vec<String> = [
        "",
        " ",
        "'",
        "''",
        "\"",
        "`",
        "\\",
        "\\\\",
        "\\'",
        "\\\"",
        "'\\",
        "\\0",
        "\u{0}",
        "a\u{0}b",
        "\u{1a}",
        "\r\n\t\u{8}\u{c}",
        "\u{7f}\u{80}\u{9f}",
        "'; DROP TABLE location; --",
        "'), (1, 1, 1, 1, 1, 1, 1); -- ",
        "\\'); DELETE FROM history; #",
        "*/ DROP TABLE history; /*",
        "/*!50000 DROP TABLE history */",
        "x'4142'",
        "_utf8mb4 x'4142'",
        "0x4142",
        "?",
        "?1 :name @name $1 %s {} {0}",
        "NULL",
        "null",
        "\\N",
        "true",
        "{\"version\":7}",
        "$[*]",
        "\\ud800",
        "\\ud83d\\ude8c",
        "\\u0000",
        "\u{1f68c}",
        "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}",
        "\u{10ffff}\u{ffff}\u{fffe}\u{fffd}",
        "\u{feff}",
        "\u{2028}\u{2029}",
        "\u{202e}abc",
        "é e\u{301} ß İ ı ǅ",
        "中文 العربية עברית ไทย",
    ]
    .map(str::to_owned)
    .to_vec();
    for long in ["'", "\\", "\u{1f68c}", "\u{0}", "ab"] {
        texts.push(long.repeat(60_000 / json!(long).to_string().len()));
    }
    texts
}

/// The same text with every character escaped, those beyond the first 65,536 as surrogates.
fn escaped(text: &str) -> String {
    let units: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
    format!("\"{units}\"")
}

async fn text_of_every_kind_is_kept_as_it_was_sent(db: Db) {
    let (server, _log) = Process::serve(db, &[QUIET]).await;
    let clients = Clients::start();
    let texts = texts();
    let shared = server.create_at(0.5, 0.5).await;
    let own = make(&server, texts.len()).await;
    let mut member = clients.connect(&server.gateway).await;
    member.join(shared).await;
    let put = async |id: u64, text: &str, properties: String| {
        let body = format!(r#"{{"id":{id},"geometry":{},"properties":{properties}}}"#, point(0.5, 1.5));
        let answer = server.http.put(format!("{}/location", server.api)).body(body);
        let answer = answer.send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::CREATED, "{text:.100}");
        let answer: Value = answer.json().await.expect("JSON");
        let feature = answer["data"]["updatedLocationResult"].clone();
        assert_eq!(feature["properties"]["text"], *text, "{text:.100}");
        feature
    };
    // All at once: as they are and escaped, as a value of one location and as a name in another.
    let mut answers = join_all(texts.iter().zip(&own).map(async |(text, id)| {
        let value = json!(text).to_string();
        let a = put(shared, text, format!(r#"{{"text":{value}}}"#)).await;
        let b = match text.len() < 10_000 {
            true => put(shared, text, format!(r#"{{"text":{}}}"#, escaped(text))).await,
            false => put(shared, text, format!(r#"{{"text":{value},"more":1}}"#)).await,
        };
        let name = json!(text.chars().take(200).collect::<String>());
        let c = put(*id, text, format!(r#"{{"text":{value},"in":{{{name}:{name}}}}}"#)).await;
        assert_eq!(c["properties"]["in"], json!({name.as_str().unwrap(): name}));
        assert_eq!(server.history(*id).await[1..], [c]);
        [a, b]
    }))
    .await
    .concat();
    answers.sort_by_key(version);
    server.assert_history(shared, answers.clone()).await;
    let head = 1 + answers.len() as u64;
    for chat in member.follow_newest(shared, 1, head).await {
        assert_eq!(chat["message"], answers[chat["version"].as_u64().expect("a version") as usize - 2]);
    }
    for text in texts.iter().filter(|text| json!(text).to_string().len() < 16 * 1024) {
        let (relayed, seen) =
            member.ask_seeing("chat", json!({"roomName": shared.to_string(), "message": text})).await;
        assert_eq!(relayed["message"], *text);
        match seen.as_slice() {
            [] => assert_eq!(member.event("chat").await, relayed),
            [saw] => assert_eq!(saw["args"][0], relayed),
            more => panic!("{more:?}"),
        }
    }
    // None of it was taken for SQL.
    assert_eq!(server.get("/location").await.1["total"], 1 + texts.len());
    server.stop().await;
}

async fn every_geometry_is_kept_bit_for_bit_amid_others(db: Db) {
    const ROUNDS: usize = 6;
    let (server, _log) = Process::serve(db, &[QUIET]).await;
    let geometries = geometries();
    let ids = make(&server, geometries.len()).await;
    // Each location is each geometry in turn, and all are moved at once.
    let write = async |n: usize| {
        let mut answers = Vec::new();
        for turn in 0..ROUNDS {
            let geometry = &geometries[(n + turn) % geometries.len()];
            let answer = server.update(&server.api, &json!({"id": ids[n], "geometry": geometry})).await;
            assert!(same(&answer["geometry"], geometry), "{geometry} {answer}");
            answers.push(answer);
        }
        answers
    };
    let answers = join_all((0..ids.len()).map(write)).await;
    let mut reader = Polling::connect(&server.gateway).await;
    for (id, answers) in ids.iter().zip(&answers) {
        let (_, head) = server.get(&format!("/location/{id}")).await;
        assert!(same(&head, &answers[ROUNDS - 1]), "{head}");
        let history = server.history(*id).await;
        let ack = reader.ask("join_room", &json!({"locationId": id, "since": 1})).await;
        let recovered = json!({"roomName": id.to_string(), "version": 1 + ROUNDS, "recovered": true});
        assert_eq!(serde_json::from_str::<Value>(&ack).expect("JSON"), recovered);
        for (answer, kept) in answers.iter().zip(&history[1..]) {
            assert!(same(kept, answer), "{kept} {answer}");
            let chat: Value = serde_json::from_str(&reader.chat().await).expect("JSON");
            assert!(same(&chat["message"], answer), "{chat} {answer}");
        }
    }
    server.stop().await;
}

/// A line with altitudes, as large as a body may be.
fn large() -> (Value, String) {
    let positions: Vec<_> = (0..40_000)
        .map(|n| json!([f64::from(n % 1_000) / 1e3, f64::from(n) / 1e3, f64::from(n) + 0.5]))
        .collect();
    let geometry = json!({"type": "LineString", "coordinates": positions});
    let text = geometry.to_string();
    (geometry, text)
}

/// Sends it in a body of exactly 1 MiB, with blanks; returns the text of the answer.
async fn put_large(server: &TestServer, id: u64, geometry: &str) -> String {
    const LIMIT: usize = 1 << 20;
    let body = format!(r#"{{"id":{id},"geometry":{geometry}}}"#);
    assert!(body.len() < LIMIT, "{}", body.len());
    let blanks = " ".repeat(LIMIT - body.len());
    let answer = server.http.put(format!("{}/location", server.api)).body(body + &blanks);
    let answer = answer.send().await.expect("an answer");
    let status = answer.status();
    let text = answer.text().await.expect("text");
    assert_eq!(status, StatusCode::CREATED, "{text:.300}");
    text
}

async fn a_large_body_among_small_ones_fails_nobody(db: Db) {
    let (server, _log) = Process::serve(db, &[QUIET]).await;
    let ids = make(&server, 10).await;
    let broad = server.create_at(0.5, 0.5).await;
    let apis = [server.api.as_str()];
    let load = Load::new(&server, &apis, &ids);
    let done = AtomicBool::new(false);
    let (geometry, text) = large();
    let large = async {
        load.answers(50).await;
        for _ in 0..2 {
            put_large(&server, broad, &text).await;
        }
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(load.run(100, |own| own < 2 || !done.load(Ordering::Relaxed)), large);
    assert_eq!(load.check().await.refused, 0);
    let history = server.history(broad).await;
    assert_eq!(history.len(), 3);
    for kept in &history[1..] {
        assert!(same(&kept["geometry"], &geometry), "another line");
    }
    server.stop().await;
}

/// Together they are more than MySQL takes in one packet.
async fn as_many_large_bodies_as_come_are_all_committed(db: Db) {
    let (server, _log) = Process::serve(db, &[QUIET]).await;
    let ids = make(&server, 18).await;
    let (geometry, text) = large();
    for answer in join_all(ids.iter().map(|id| put_large(&server, *id, &text))).await {
        assert!(answer.contains(r#""version":2,"#), "{}", &answer[answer.len() - 300..]);
    }
    let history = server.history(ids[17]).await;
    assert_eq!(history.len(), 2);
    assert!(same(&history[1]["geometry"], &geometry), "another line");
    server.stop().await;
}
