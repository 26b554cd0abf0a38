//! The history of a location: every version whole, in pages, for as long as it is to be kept.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use georoom::domain::error::Code;
use reqwest::{Method, StatusCode, header};
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    on_both_databases,
    support::{
        Db, QUIET, TestDatabase, TestServer,
        history::{version, versions},
        load::Load,
        machine, point,
        problem::Problem,
        process::{Process, run},
    },
};

on_both_databases!(
    every_version_is_kept_as_it_stood,
    pages_join_without_hole_or_repeat,
    a_page_of_large_versions_is_whole,
    a_deleted_location_takes_its_history_along,
    what_a_deleted_location_leaves_is_removed_after_a_crash_too,
    as_many_versions_are_kept_as_are_to_be,
    at_least_the_newest_thousand_are_kept_by_default,
    the_head_is_kept_when_nothing_else_is,
    versions_that_are_too_old_go_and_the_head_stays,
    removing_very_many_versions_stalls_no_writer,
);

/// How many versions more than wanted may be there: they are removed in steps.
const STEP: u64 = 100;
/// Longer than any clean-up takes on a busy machine; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// Moves a location so many times, many callers at once.
async fn move_often(server: &TestServer, id: u64, times: usize) {
    const CALLERS: usize = 50;
    assert!(times.is_multiple_of(CALLERS));
    let moves = async |caller: usize| {
        for turn in 0..times / CALLERS {
            server.move_to(id, caller as f64 + 0.5, turn as f64 / 10.0).await;
        }
    };
    join_all((0..CALLERS).map(moves)).await;
}

async fn every_version_is_kept_as_it_stood(db: Db) {
    let server = TestServer::start(db).await;
    let line = json!({"type": "LineString", "coordinates": [[1.5, 2.5, 30.25], [3, 4], [5, 6, -0.5]]});
    let body = json!({
        "geometry": line,
        "properties": {"name": "bus", "seats": {"free": 3, "all": 40}},
        "userId": 7,
    });
    let (status, made) = server.post(&body).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let mut all = vec![made["data"]["location"].clone()];
    let id = all[0]["id"].as_u64().expect("an id");
    // Somebody else's, who must not turn up.
    let other = server.create_at(9.5, 9.5).await;
    for update in [
        json!({"geometry": point(1.5, 2.5), "userId": 8}),
        json!({"properties": {"seats": {"free": 2}, "late": true}, "userId": 9}),
        json!({"properties": {"name": null}, "geometry": line}),
        json!({"properties": {}}),
        json!({"properties": {"seats": null, "version": 1, "updatedAt": "never"}, "userId": 0}),
    ] {
        let mut update = update;
        update["id"] = json!(id);
        all.push(server.update(&server.api, &update).await);
        server.move_to(other, 8.5, 8.5).await;
    }
    assert_eq!(server.history(id).await, all);
    let seen: Vec<_> = all.iter().map(|feature| feature["properties"]["updatedBy"].clone()).collect();
    assert_eq!(seen, [7, 8, 9, 1, 1, 0]);
    let late: Vec<_> = all.iter().map(|feature| feature["properties"].get("late").is_some()).collect();
    assert_eq!(late, [false, false, true, true, true, true]);
    assert_eq!(all[5]["properties"].get("seats"), None);
    for feature in &all {
        assert_eq!(feature["properties"]["userId"], 7);
        assert_eq!(feature["properties"]["createdAt"], all[0]["properties"]["createdAt"]);
    }
    let times: Vec<_> = all.iter().map(|feature| feature["properties"]["updatedAt"].as_str()).collect();
    assert!(times.is_sorted(), "{times:?}");

    // And still so when the server has been started again.
    let database = server.halt().await;
    let server = TestServer::start_on(database, &[]).await;
    assert_eq!(server.history(id).await, all);
    server.stop().await;
}

async fn pages_join_without_hole_or_repeat(db: Db) {
    let server = TestServer::start_with(db, &[("HISTORY_VERSIONS", "5000")]).await;
    let id = server.create_at(0.5, 0.5).await;
    let page = server.history_page(id, "").await;
    assert_eq!((versions(&page.features), page.version), (vec![1], 1));
    move_often(&server, id, 1_100).await;
    let all = server.history(id).await;
    assert_eq!(versions(&all), (1..=1_101).collect::<Vec<_>>());
    for (query, first, last) in [
        ("", 1, 1_000),
        ("since=0", 1, 1_000),
        ("userId=5", 1, 1_000),
        ("limit=1000", 1, 1_000),
        ("limit=1", 1, 1),
        ("limit=7&since=0", 1, 7),
        ("since=1", 2, 1_001),
        ("since=500&limit=100", 501, 600),
        ("since=100&limit=1000", 101, 1_100),
        ("since=101", 102, 1_101),
        ("since=1000", 1_001, 1_101),
        ("since=1100&limit=1", 1_101, 1_101),
        ("since=1095", 1_096, 1_101),
        // At the head, above it, far above it.
        ("since=1101", 1_102, 1_101),
        ("since=1102", 1_102, 1_101),
        ("since=9007199254740991&limit=3", 1_102, 1_101),
    ] {
        let page = server.history_page(id, query).await;
        assert_eq!(versions(&page.features), (first..=last).collect::<Vec<_>>(), "{query}");
        assert_eq!(page.version, 1_101, "{query}");
        assert_eq!(page.features, all[first as usize - 1..last as usize], "{query}");
    }
    for limit in [1_000, 999, 313] {
        let mut paged = Vec::new();
        loop {
            let since = paged.last().map_or(0, version);
            let page = server.history_page(id, &format!("limit={limit}&since={since}")).await;
            if page.features.is_empty() {
                break;
            }
            paged.extend(page.features);
        }
        assert_eq!(paged, all, "{limit}");
    }
    server.stop().await;
}

async fn a_page_of_large_versions_is_whole(db: Db) {
    const UPDATES: usize = 300;
    let server = TestServer::start(db).await;
    let id = server.create_at(0.5, 0.5).await;
    let luggage = "l".repeat(60_000);
    server.update(&server.api, &json!({"id": id, "properties": {"luggage": luggage}})).await;
    move_often(&server, id, UPDATES).await;
    for (query, first, last) in [("", 1, 302), ("since=100&limit=150", 101, 250), ("since=301", 302, 302)] {
        let page = server.history_page(id, query).await;
        assert_eq!(versions(&page.features), (first..=last).collect::<Vec<_>>(), "{query}");
        let luggage = |feature: &Value| feature["properties"]["luggage"].as_str().map(str::len);
        let large = page.features.iter().filter(|feature| version(feature) > 1);
        assert!(large.map(luggage).all(|length| length == Some(60_000)), "{query}");
    }
    server.stop().await;
}

#[tokio::test]
async fn every_bad_parameter_is_refused() {
    let server = TestServer::start(Db::Sqlite).await;
    let id = server.create_at(1.0, 2.0).await;
    for query in [
        "since=",
        "since",
        "since=-1",
        "since=+1",
        "since=1.0",
        "since=1e1",
        "since=%201",
        "since=one",
        "since=null",
        "since=١",
        "since=0x1",
        "since=9007199254740992",
        "since=18446744073709551616",
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=",
        "limit",
        "limit=1.5",
        "limit=all",
        "limit=18446744073709551617",
        "since=1&since=1",
        "limit=1&limit=2",
        "since=1&limit=1&since=2",
        "userId=1&userId=1",
        "until=3",
        "page=1",
        "perPage=10",
        "Since=1",
        "LIMIT=1",
        "since[]=1",
        "=1",
        "bbox=0,0,1,1",
    ] {
        let path = format!("/location/{id}/history?{query}");
        let problem = Problem::of(server.send(Method::GET, &path, None).await).await;
        let problem =
            Problem::check(problem, StatusCode::UNPROCESSABLE_ENTITY, Code::InvalidParameter, query);
        assert_eq!(problem.pointer, None, "{query}: there is no body to point into");
    }
    for user in ["-1", "x", "9007199254740992"] {
        let path = format!("/location/{id}/history?userId={user}");
        let problem = Problem::of(server.send(Method::GET, &path, None).await).await;
        Problem::check(problem, StatusCode::UNPROCESSABLE_ENTITY, Code::InvalidUserId, user);
    }
    server.stop().await;
}

#[tokio::test]
async fn an_unknown_location_has_no_history_and_a_history_is_only_read() {
    let server = TestServer::start(Db::Sqlite).await;
    let id = server.create_at(1.0, 2.0).await;
    for unknown in [(id + 1).to_string().as_str(), "0", "01", "x", "1.0", "9007199254740992"] {
        let path = format!("/location/{unknown}/history");
        let problem = Problem::of(server.send(Method::GET, &path, None).await).await;
        Problem::check(problem, StatusCode::NOT_FOUND, Code::NotFound, &path);
    }
    for path in [format!("/location/{id}/history/1"), format!("/location/{id}/History")] {
        for method in [Method::GET, Method::PUT] {
            let problem = Problem::of(server.send(method, &path, None).await).await;
            Problem::check(problem, StatusCode::NOT_FOUND, Code::NotFound, &path);
        }
    }
    for id in [id.to_string(), (id + 1).to_string(), "x".to_owned()] {
        let path = format!("/location/{id}/history");
        for method in ["POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW"] {
            let answer = server.send(method.parse().unwrap(), &path, Some(&json!({}))).await;
            let allow = answer.headers().get(header::ALLOW).map(|allow| allow.to_str().unwrap().to_owned());
            let about = format!("{method} {path}");
            let status = StatusCode::METHOD_NOT_ALLOWED;
            Problem::check(Problem::of(answer).await, status, Code::MethodNotAllowed, &about);
            assert_eq!(allow.as_deref(), Some("GET, HEAD, OPTIONS"), "{about}");
        }
    }
    for query in ["", "?since=5", "?since=x"] {
        let path = format!("/location/{id}/history{query}");
        let get = server.send(Method::GET, &path, None).await;
        let head = server.send(Method::HEAD, &path, None).await;
        assert_eq!(get.status(), head.status(), "{path}");
        for name in [header::CONTENT_TYPE, header::CONTENT_LENGTH] {
            assert_eq!(get.headers().get(&name), head.headers().get(&name), "{path}: {name}");
        }
        assert!(!get.text().await.unwrap().is_empty());
        assert_eq!(head.text().await.unwrap(), "", "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn bad_settings_stop_the_start() {
    let folder = TestDatabase::create(Db::Sqlite).await;
    for (name, value) in [
        ("HISTORY_VERSIONS", "0"),
        ("HISTORY_VERSIONS", "-1"),
        ("HISTORY_VERSIONS", "1.5"),
        ("HISTORY_VERSIONS", "1e3"),
        ("HISTORY_VERSIONS", "all"),
        ("HISTORY_AGE", "30"),
        ("HISTORY_AGE", "-1s"),
        ("HISTORY_AGE", "30 fortnights"),
        ("HISTORY_AGE", "forever"),
        ("NOTIFICATION_AGE", "30"),
        ("NOTIFICATION_AGE", "10ms"),
        ("NOTIFICATION_COUNT", "0"),
        ("NOTIFICATION_COUNT", "all"),
    ] {
        let settings = [
            ("DATABASE_URL", folder.url.as_str()),
            ("API_ADDR", "127.0.0.1:0"),
            ("GATEWAY_ADDR", "127.0.0.1:0"),
            (name, value),
        ];
        // A server that takes the value would run until it is stopped.
        let ended = tokio::time::timeout(Duration::from_secs(10), run(&settings, &[])).await;
        let ended = ended.unwrap_or_else(|_| panic!("{name}={value} is taken"));
        assert_eq!(ended.code, Some(1), "{name}={value}: {ended:?}");
        assert!(ended.stderr.starts_with(&format!("georoom: {name}")), "{name}={value}: {ended:?}");
        assert_eq!(ended.stderr.trim_end().lines().count(), 1, "{name}={value}: {ended:?}");
    }
}

/// How many rows `history` has of a location.
async fn rows(connection: &DatabaseConnection, id: u64) -> i64 {
    let sql = format!("SELECT COUNT(*) AS kept FROM history WHERE location_id = {id}");
    let row = connection.query_one_raw(Statement::from_string(connection.get_database_backend(), sql)).await;
    row.expect("a count").expect("a row").try_get("", "kept").expect("a number")
}

/// Waits until the server has brought the number of a location's rows down by itself.
async fn until_rows(connection: &DatabaseConnection, id: u64, at_most: u64) {
    let started = Instant::now();
    loop {
        let rows = rows(connection, id).await;
        if rows <= at_most as i64 {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{id} still has {rows} rows");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Gives a location that has not moved yet so many versions, as if it had moved. The server is not
/// running.
async fn fill(connection: &DatabaseConnection, id: u64, head: u64) {
    let number = "SELECT 0 AS n UNION ALL SELECT n + 1 FROM numbers WHERE n < 200";
    // The location's own first version is there already.
    let sql = format!(
        "INSERT INTO history (location_id, version, geometry, altitudes, properties, updated_by, updated_at) \
         WITH RECURSIVE numbers AS ({number}) \
         SELECT l.id, a.n * 200 + b.n, l.geometry, l.altitudes, l.properties, l.updated_by, l.updated_at \
         FROM location AS l CROSS JOIN numbers AS a CROSS JOIN numbers AS b \
         WHERE l.id = {id} AND b.n < 200 AND a.n * 200 + b.n BETWEEN 2 AND {head}"
    );
    connection.execute_unprepared(&sql).await.expect(&sql);
    let sql = format!("UPDATE location SET version = {head} WHERE id = {id}");
    connection.execute_unprepared(&sql).await.expect(&sql);
    assert_eq!(rows(connection, id).await, head as i64);
}

async fn a_deleted_location_takes_its_history_along(db: Db) {
    let server = TestServer::start(db).await;
    let (gone, stays) = (server.create_at(0.5, 0.5).await, server.create_at(0.5, 0.5).await);
    move_often(&server, gone, 700).await;
    move_often(&server, stays, 50).await;
    let connection = server.database.open().await;
    assert_eq!(rows(&connection, gone).await, 701);
    assert_eq!(server.delete(gone).await, StatusCode::NO_CONTENT);
    for query in ["", "?since=0", "?since=700", "?since=9000"] {
        let (status, refusal) = server.get(&format!("/location/{gone}/history{query}")).await;
        assert_eq!((status, &refusal["code"]), (StatusCode::NOT_FOUND, &json!("not_found")), "{query}");
    }
    until_rows(&connection, gone, 0).await;
    assert_eq!(server.history(stays).await.len(), 51);
    // Nor does one come back that was deleted amid updates.
    let apis = [server.api.as_str()];
    let ids = [stays];
    let load = Load::new(&server, &apis, &ids);
    let raced = server.create_at(0.5, 0.5).await;
    let race = async {
        let puts = (0..40).map(|n| {
            let body = json!({"id": raced, "geometry": point(f64::from(n), 0.5)});
            let server = &server;
            async move { server.put(&body).await.0 }
        });
        tokio::join!(join_all(puts), server.delete(raced))
    };
    let ((), (_, deleted)) = tokio::join!(load.run(10, |own| own < 10), race);
    assert_eq!(deleted, StatusCode::NO_CONTENT);
    until_rows(&connection, raced, 0).await;
    connection.close().await.expect("close");
    server.stop().await;
}

/// The location goes at once and its rows in steps: between the two the process may end.
async fn what_a_deleted_location_leaves_is_removed_after_a_crash_too(db: Db) {
    let server = TestServer::start(db).await;
    let id = server.create_at(0.5, 0.5).await;
    let database = server.halt().await;
    let connection = database.open().await;
    fill(&connection, id, 20_000).await;
    let settings = [("DATABASE_URL", database.url.as_str()), ("HISTORY_VERSIONS", "1000000"), QUIET];
    let first = Process::start(&settings).await;
    let http = reqwest::Client::new();
    let deleted = http.delete(format!("{}/location/{id}", first.api)).send().await.expect("an answer");
    assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
    first.signal("KILL").await;
    assert_eq!(first.ended().await, None);
    let second = Process::start(&settings).await;
    let read = http.get(format!("{}/location/{id}/history", second.api)).send().await.expect("an answer");
    assert_eq!(read.status(), StatusCode::NOT_FOUND);
    until_rows(&connection, id, 0).await;
    second.signal("TERM").await;
    assert_eq!(second.ended().await, Some(0));
    connection.close().await.expect("close");
    database.drop().await;
}

async fn as_many_versions_are_kept_as_are_to_be(db: Db) {
    let server = TestServer::start_with(db, &[("HISTORY_VERSIONS", "10")]).await;
    let id = server.create_at(0.5, 0.5).await;
    let short = server.create_at(0.5, 0.5).await;
    for _ in 0..9 {
        server.move_to(short, 1.5, 1.5).await;
    }
    for round in 1..=4 {
        move_often(&server, id, 50).await;
        // At every moment, removed or not: the newest ten.
        let page = server.history_page(id, "").await;
        let kept = versions(&page.features);
        assert!(kept.len() >= 10, "{kept:?}");
        assert_eq!((page.version, kept.last().copied()), (1 + 50 * round, Some(1 + 50 * round)));
    }
    let page = server.history_until(id, |page| page.features.len() as u64 <= 10 + STEP).await;
    assert!(page.features.len() >= 10, "{:?}", versions(&page.features));
    assert_eq!(server.history(id).await.last(), page.features.last());
    // What is not in the history is not in the table.
    let connection = server.database.open().await;
    until_rows(&connection, id, 10 + STEP).await;
    connection.close().await.expect("close");
    assert_eq!(versions(&server.history(short).await), (1..=10).collect::<Vec<_>>());
    server.stop().await;
}

async fn at_least_the_newest_thousand_are_kept_by_default(db: Db) {
    let (server, _log) = Process::serve(db, &[QUIET]).await;
    let id = server.create_at(0.5, 0.5).await;
    move_often(&server, id, 1_200).await;
    let connection = server.database.open().await;
    until_rows(&connection, id, 1_000 + STEP).await;
    connection.close().await.expect("close");
    let kept = versions(&server.history(id).await);
    assert!((1_000..=1_000 + STEP as usize).contains(&kept.len()), "{} are kept", kept.len());
    assert_eq!(kept.last(), Some(&1_201));
    server.stop().await;
}

async fn the_head_is_kept_when_nothing_else_is(db: Db) {
    let server = TestServer::start_with(db, &[("HISTORY_VERSIONS", "1")]).await;
    let id = server.create_at(0.5, 0.5).await;
    let done = AtomicBool::new(false);
    let read = async {
        while !done.load(Ordering::Relaxed) {
            let page = server.history_page(id, "").await;
            let newest = page.features.last().map(version);
            assert_eq!(newest, Some(page.version), "{:?}", versions(&page.features));
        }
    };
    let write = async {
        move_often(&server, id, 400).await;
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(read, write);
    let page = server.history_until(id, |page| page.features.len() as u64 <= 1 + STEP).await;
    assert_eq!(page.features.last(), server.history(id).await.last());
    server.stop().await;
}

async fn versions_that_are_too_old_go_and_the_head_stays(db: Db) {
    let server = TestServer::start_with(db, &[("HISTORY_AGE", "1s")]).await;
    let mut before: Vec<(u64, Value)> = Vec::new();
    // None of these moves again; each round outlasts what the ones before it may keep.
    for round in 0..3 {
        let id = server.create_at(0.5, 0.5).await;
        let moved = Instant::now();
        for turn in 0..5 {
            server.move_to(id, f64::from(round), f64::from(turn)).await;
        }
        let head = server.get(&format!("/location/{id}")).await.1;
        let page = server.history_until(id, |page| page.features.len() == 1).await;
        assert!(moved.elapsed() >= Duration::from_secs(1), "too early: {:?}", moved.elapsed());
        assert!(moved.elapsed() < Duration::from_secs(15), "too late: {:?}", moved.elapsed());
        assert_eq!(page.features, std::slice::from_ref(&head));
        before.push((id, head));
    }
    for (id, head) in before {
        assert_eq!(server.history(id).await, [head]);
        // And it goes on from there.
        server.move_to(id, 7.5, 7.5).await;
        let after = server.history_page(id, "since=6").await;
        assert_eq!((versions(&after.features), after.version), (vec![7], 7));
    }
    server.stop().await;
}

async fn removing_very_many_versions_stalls_no_writer(db: Db) {
    let _share = machine::half().await;
    const MANY: u64 = 20_000;
    let server = TestServer::start(db).await;
    let busy = server.create_at(0.5, 0.5).await;
    let quiet = join_all((0..10).map(|_| server.create_at(0.5, 0.5))).await;
    let database = server.halt().await;
    let connection = database.open().await;
    fill(&connection, busy, MANY).await;
    for id in &quiet {
        fill(&connection, *id, 1_000).await;
    }

    let (server, _log) = Process::serve_on(database, &[("HISTORY_VERSIONS", "10"), QUIET]).await;
    let done = AtomicBool::new(false);
    let write = async |caller: u32| {
        let mut slowest = Duration::ZERO;
        let mut moves = 0_u32;
        while !done.load(Ordering::Relaxed) || moves == 0 {
            let started = Instant::now();
            // The one that is being cleared, and those that move for the first time since.
            let id = if caller < 6 { busy } else { quiet[moves as usize % 2] };
            server.move_to(id, f64::from(caller), f64::from(moves % 90)).await;
            slowest = slowest.max(started.elapsed());
            moves += 1;
        }
        (slowest, u64::from(moves))
    };
    let removed = async {
        for id in [busy].iter().chain(&quiet) {
            // And what the writers add meanwhile.
            until_rows(&connection, *id, 10 + STEP + 900).await;
        }
        done.store(true, Ordering::Relaxed);
    };
    let (writers, ()) = tokio::join!(join_all((0..8).map(write)), removed);
    for id in [busy].iter().chain(&quiet) {
        until_rows(&connection, *id, 10 + STEP).await;
    }
    let slowest = writers.iter().map(|(slowest, _)| *slowest).max();
    assert!(slowest < Some(Duration::from_secs(1)), "{slowest:?}");
    let moves: u64 = writers[..6].iter().map(|(_, moves)| moves).sum();
    let history = server.history(busy).await;
    assert_eq!(history.last().map(version), Some(MANY + moves));
    assert!(history.len() >= 10, "{}", history.len());
    for id in &quiet {
        assert!(server.history(*id).await.len() >= 10);
    }
    connection.close().await.expect("close");
    server.stop().await;
}
