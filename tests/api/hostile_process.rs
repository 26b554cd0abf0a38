//! Faults that must stay where they are: a log that nobody reads, a row that cannot be read, starts at the same
//! time, a step of a migration that was broken off, a MySQL that was started again.

use std::{io, process::ExitStatus, time::Duration};

use futures_util::future::join_all;
use georoom::{
    domain::error::Code,
    storage::{Store, is_in_use},
};
use reqwest::{Client, Method, StatusCode};
use sea_orm::{ConnectionTrait, DatabaseBackend, DatabaseConnection, Statement};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Child,
    time::{sleep, timeout},
};

use crate::{
    on_both_databases,
    support::{
        Db, TestDatabase, TestServer,
        clients::Clients,
        exposition::Exposition,
        mysqld::Mysqld,
        noise::{self, BROKEN_ROW},
        point,
        process::{Process, command, run, signal},
        proxy::Proxy,
        site::Site,
        tokens::{KEY, token},
    },
};

on_both_databases!(
    a_row_that_cannot_be_read_breaks_its_own_location_only,
    processes_that_start_at_the_same_time_all_come_up,
    every_step_of_the_migrations_can_be_repeated,
    a_database_of_another_version_is_refused_in_one_line,
);

const ON: (&str, &str) = ("RATE_LIMITS", "on");
/// Longer than anything here takes on a busy machine; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(30);
/// The contract's time for an end.
const END: Duration = Duration::from_secs(10);

/// A process whose standard output and standard error are pipes; waits until it answers.
async fn piped(site: &Site) -> Child {
    let child = command(&site.settings(), &[]).spawn().expect("the binary");
    let http = Client::new();
    let answers = async {
        while http.get(format!("{}/healthz", site.api)).send().await.is_err() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, answers).await.expect("the server answers");
    child
}

/// Asks so often whether the process is up that its log takes some megabytes.
async fn make_it_log(site: &Site, requests: usize) {
    let http = Client::new();
    let ask = async |_| {
        for _ in 0..requests / 20 {
            let request = http.get(format!("{}/healthz", site.api)).header("X-Request-Id", "x".repeat(128));
            let answer = timeout(PATIENCE, request.send()).await.expect("an answer in time");
            assert_eq!(answer.expect("an answer").status(), StatusCode::OK);
        }
    };
    join_all((0..20).map(ask)).await;
}

async fn terminate(mut child: Child) -> io::Result<ExitStatus> {
    signal(&child, "TERM").await;
    timeout(END, child.wait()).await.expect("the end within 10 s")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_stops_nothing() {
    let site = Site::new(Db::Sqlite, &[("LOG_FORMAT", "json"), ON]).await;
    let mut child = piped(&site).await;
    make_it_log(&site, 10_000).await;
    let metrics = Client::new().get(format!("{}/metrics", site.api)).send().await.expect("an answer");
    let metrics = metrics.text().await.expect("text");
    let dropped = metrics.lines().find_map(|line| line.strip_prefix("georoom_log_lines_dropped_total "));
    let dropped: u64 = dropped.expect("the counter").parse().expect("a number");
    assert!(dropped > 0, "lines are dropped, not waited for");

    let ids = site.create(2).await;
    let clients = Clients::start();
    let mut member = clients.connect(&site.gateway).await;
    assert_eq!(member.join(ids[0]).await["version"], 1);
    assert_eq!(site.move_all(&ids).await[&ids[0]], 2);
    assert_eq!(member.event("chat").await["version"], 2);

    // Once there is room, a line says how many are missing.
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let said = async {
        loop {
            let line = lines.next_line().await.expect("text").expect("more lines");
            let line: Value = serde_json::from_str(&line).expect("whole lines of JSON");
            if let Some(lines) = line["lines"].as_u64() {
                return lines;
            }
        }
    };
    assert!(timeout(PATIENCE, said).await.expect("the line") >= dropped);

    // The pipe is full again when it is to end.
    make_it_log(&site, 2_000).await;
    assert_eq!(terminate(child).await.expect("a status").code(), Some(0));
    site.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_whose_errors_nobody_reads_ends_all_the_same() {
    let mut child = command(&[("RUST_LOG", "georoom=loud")], &[]).spawn().expect("the binary");
    let status = timeout(END, child.wait()).await.expect("the end").expect("a status");
    assert_eq!(status.code(), Some(1));
}

/// Before anybody is identified, a line of the log is short, and too many of them are refused.
#[tokio::test(flavor = "multi_thread")]
async fn unknown_paths_are_cut_in_the_log_and_limited_by_address() {
    let (server, mut log) = Process::serve(Db::Sqlite, &[KEY, ON]).await;
    let path = format!("/{}", "é".repeat(10_000));
    let (status, problem) = server.get(&path).await;
    assert_eq!((status, problem["code"].as_str()), (StatusCode::NOT_FOUND, Some(Code::NotFound.as_str())));
    let line = log.find("request", &[]).await;
    let logged = line["span"]["path"].as_str().or(line["spans"][0]["path"].as_str()).expect("a path");
    assert!(logged.len() <= 200, "{}", logged.len());

    let asked = join_all((0..400).map(|_| server.get("/nowhere"))).await;
    let count = |wanted| asked.iter().filter(|(status, _)| *status == wanted).count();
    let (unknown, limited) = (count(StatusCode::NOT_FOUND), count(StatusCode::TOO_MANY_REQUESTS));
    assert_eq!(unknown + limited, 400);
    // 20 a second, and five times as many at once.
    assert!(unknown >= 99 && limited > 0, "{unknown} unknown, {limited} limited");
    for path in ["/healthz", "/readyz", "/metrics"] {
        let answer = server.send(Method::GET, path, None).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
    }
    let owner = token(7);
    let request = server.http.get(format!("{}/location", server.api)).bearer_auth(owner);
    assert_eq!(request.send().await.expect("an answer").status(), StatusCode::OK);
    server.stop().await;
}

async fn a_row_that_cannot_be_read_breaks_its_own_location_only(db: Db) {
    noise::expect(&BROKEN_ROW);
    let server = TestServer::start_with(db, &[ON]).await;
    let clients = Clients::start();
    let mut member = clients.connect(&server.gateway).await;
    let [bad, good] = [server.create_at(1.0, 1.0).await, server.create_at(2.0, 2.0).await];
    // Of a room in which nobody is yet.
    let cold = server.create_at(2.0, 2.0).await;
    member.join(bad).await;
    member.join(good).await;
    let by_hand = server.database.open().await;
    let set = async |expression: &str| {
        let sql = format!("UPDATE location SET properties = {expression} WHERE id IN ({bad}, {cold})");
        by_hand.execute_unprepared(&sql).await.expect("an update by hand");
    };

    // White space around the text does no harm.
    set(match db {
        Db::Sqlite => "char(9) || properties || char(10)",
        Db::MySql => "CONCAT(CHAR(9 USING utf8mb4), properties, CHAR(10 USING utf8mb4))",
    })
    .await;
    assert_eq!(server.move_to(bad, 1.5, 1.5).await["properties"]["version"], 2);
    assert_eq!(member.event("chat").await["version"], 2);

    for stored in ["'x'", "'[]'", "'{'", "''"] {
        set(stored).await;
        let (status, problem) = server.get(&format!("/location/{bad}")).await;
        assert_eq!((status, problem["code"].as_str()), (StatusCode::INTERNAL_SERVER_ERROR, Some("internal")));
        // Together, so that they may well be in one transaction.
        let moves = [bad, good, bad, good].map(async |id| {
            let body = json!({"id": id, "geometry": point(3.0, 3.0)});
            (id, server.put(&body).await.0)
        });
        for (id, status) in join_all(moves).await {
            let wanted = if id == bad { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::CREATED };
            assert_eq!(status, wanted, "{stored}");
        }
        let first = member.event("chat").await;
        assert_eq!(first["roomName"], good.to_string());
        assert_eq!(member.event("chat").await["version"], first["version"].as_u64().expect("a version") + 1);
        let mut late = clients.connect(&server.gateway).await;
        let refused = late.ask("join_room", json!({"locationId": cold})).await;
        assert_eq!(refused["code"], "internal", "{refused}");
        // The same socket's next event is handled.
        assert_eq!(late.join(good).await["version"], first["version"].as_u64().expect("a version") + 1);
        let (status, _) = server.get("/healthz").await;
        assert_eq!(status, StatusCode::OK);
    }
    // Put right, it goes on, from where its room was.
    set("'{}'").await;
    assert_eq!(server.move_to(bad, 4.0, 4.0).await["properties"]["version"], 3);
    assert_eq!(member.event("chat").await["version"], 3);
    assert_eq!(Exposition::scrape(&server).await.sum("georoom_task_panics_total"), 0.0);
    by_hand.close().await.expect("close");
    server.stop().await;
}

async fn processes_that_start_at_the_same_time_all_come_up(db: Db) {
    for round in 0..5 {
        let database = TestDatabase::create(db).await;
        let settings = [("DATABASE_URL", database.url.as_str()), ON];
        let started = join_all((0..if round == 0 { 5 } else { 2 }).map(|_| Process::start(&settings)));
        let mut processes = timeout(PATIENCE, started).await.expect("all start");
        let http = Client::new();
        for process in &mut processes {
            let ready = async {
                while http.get(format!("{}/readyz", process.api)).send().await.expect("an answer").status()
                    != StatusCode::OK
                {
                    sleep(Duration::from_millis(20)).await;
                }
            };
            timeout(PATIENCE, ready).await.expect("it is ready");
            let body = json!({"geometry": point(1.0, 1.0)});
            let made = http.post(format!("{}/location", process.api)).json(&body).send().await;
            assert_eq!(made.expect("an answer").status(), StatusCode::CREATED);
        }
        for process in processes {
            process.kill().await;
        }
        let migrated = join_all((0..2).map(|_| run(&settings, &["migrate"]))).await;
        migrated.iter().for_each(|ended| assert_eq!(ended.code, Some(0), "{ended:?}"));
        database.drop().await;
    }
}

async fn numbers(db: &DatabaseConnection, backend: DatabaseBackend, sql: &str) -> Vec<i64> {
    let rows = db.query_all_raw(Statement::from_string(backend, sql.to_owned())).await.expect(sql);
    rows.iter().map(|row| row.try_get_by_index(0).expect("a number")).collect()
}

/// Each step may have been broken off after its last statement and before its note.
async fn every_step_of_the_migrations_can_be_repeated(db: Db) {
    let database = TestDatabase::create(db).await;
    let store = Store::connect(&database.url).await.expect("a store");
    store.migrate().await.expect("the first time");
    let by_hand = database.open().await;
    let count = "SELECT COUNT(*) FROM seaql_migrations";
    let noted = numbers(&by_hand, by_hand.get_database_backend(), count).await;
    by_hand.execute_unprepared("DELETE FROM seaql_migrations").await.expect("forgotten");
    store.migrate().await.expect("all again");
    assert_eq!(numbers(&by_hand, by_hand.get_database_backend(), count).await, noted);
    by_hand.close().await.expect("close");
    store.close().await;
    database.drop().await;
}

/// A database that was made by another version has steps that this one does not know.
async fn a_database_of_another_version_is_refused_in_one_line(db: Db) {
    let database = TestDatabase::create(db).await;
    let settings = [("DATABASE_URL", database.url.as_str())];
    assert_eq!(run(&settings, &["migrate"]).await.code, Some(0));
    let by_hand = database.open().await;
    for step in ["m0001_create_location", "m0099_something_later"] {
        let note = format!("INSERT INTO seaql_migrations (version, applied_at) VALUES ('{step}', 0)");
        by_hand.execute_unprepared(&note).await.expect("noted");
    }
    by_hand.close().await.expect("close");
    for args in [&[][..], &["migrate"]] {
        let ended = run(&settings, args).await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert_eq!(ended.stderr.trim_end().lines().count(), 1, "{}", ended.stderr);
        for words in
            ["georoom: DATABASE_URL: ", "another version of georoom", "m0099_something_later", "empty"]
        {
            assert!(ended.stderr.contains(words), "{words}: {}", ended.stderr);
        }
    }
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_waits_for_another_and_lets_go_when_it_fails() {
    const NAME: &str = "SHA2(CONCAT('georoom.migrate.', DATABASE()), 224)";
    let database = TestDatabase::create(Db::MySql).await;
    let store = Store::connect(&database.url).await.expect("a store");
    let other = database.open().await;
    let lock = numbers(&other, DatabaseBackend::MySql, &format!("SELECT GET_LOCK({NAME}, 0)")).await;
    assert_eq!(lock, [1]);
    let refused = store.migrate().await.expect_err("somebody else migrates");
    assert!(is_in_use(&refused) && store.is_away(&refused), "{refused}");
    let sql = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE()";
    assert_eq!(numbers(&other, DatabaseBackend::MySql, sql).await, [0], "nothing is made meanwhile");
    other.execute_unprepared(&format!("SELECT RELEASE_LOCK({NAME})")).await.expect("released");

    // No table of notes: each try fails, and must leave the lock to whoever comes next.
    other.execute_unprepared("CREATE TABLE seaql_migrations (nothing INT)").await.expect("a table");
    for _ in 0..3 {
        let failed = store.migrate().await.expect_err("it cannot be noted");
        assert!(!is_in_use(&failed), "{failed}");
        let free = format!("SELECT IS_FREE_LOCK({NAME})");
        assert_eq!(numbers(&other, DatabaseBackend::MySql, &free).await, [1]);
    }
    other.execute_unprepared("DROP TABLE seaql_migrations").await.expect("gone");
    store.migrate().await.expect("now it can");
    other.close().await.expect("close");
    store.close().await;
    database.drop().await;
}

/// A connection that was given up is ended at MySQL, by its number. After a restart MySQL counts from the beginning:
/// the number may be somebody else's then, who must not lose a connection for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_mysql_is_not_told_to_end_the_connections_of_others() {
    let mut mysqld = Mysqld::started().await;
    let proxy = Proxy::before(&mysqld.url(), None).await;
    let site = Site::on(&proxy.url, &[ON]);
    let process = site.start().await;
    let id = site.create(1).await[0];
    let backend = DatabaseBackend::MySql;
    let theirs = mysqld.open().await;
    let used =
        numbers(&theirs, backend, "SELECT CAST(MAX(id) AS SIGNED) FROM information_schema.processlist").await
            [0];

    let addr = proxy.cut().await;
    mysqld.kill();
    let body = json!({"geometry": point(1.0, 1.0)});
    let path = format!("/location/{id}");
    let (status, _) = site.send(Method::PUT, &path, Some(body.clone())).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    mysqld.start().await;
    let mut others = Vec::new();
    loop {
        let other = mysqld.open().await;
        let number = numbers(&other, backend, "SELECT CAST(CONNECTION_ID() AS SIGNED)").await[0];
        others.push((other, number));
        if number > used {
            break;
        }
    }
    let proxy = Proxy::before(&mysqld.url(), Some(addr)).await;
    let back = async {
        while site.send(Method::PUT, &path, Some(body.clone())).await.0 != StatusCode::CREATED {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, back).await.expect("writes go on");
    for (other, number) in &others {
        let now = numbers(other, backend, "SELECT CAST(CONNECTION_ID() AS SIGNED)").await[0];
        assert_eq!(now, *number, "it is still the same connection");
    }
    process.kill().await;
    proxy.cut().await;
}

/// Each new location takes a round trip of its own; however many come at once, they must not wait for each other
/// until the time of all is up.
#[tokio::test(flavor = "multi_thread")]
async fn many_locations_are_made_over_a_slow_network() {
    let database = TestDatabase::create(Db::MySql).await;
    let proxy = Proxy::start(&database, None).await;
    let site = Site::on(&proxy.url, &[ON]);
    let process = site.start().await;
    site.create(1).await;
    proxy.move_away(Duration::from_millis(30));
    let body = json!({"geometry": point(1.0, 1.0)});
    let made = (0..180).map(|_| site.send(Method::POST, "/location", Some(body.clone())));
    let made = timeout(PATIENCE, join_all(made)).await.expect("answers");
    let refused: Vec<_> = made.iter().filter(|(status, _)| *status != StatusCode::CREATED).collect();
    assert!(refused.is_empty(), "{} of 180 were refused: {:?}", refused.len(), refused[0]);
    process.kill().await;
    proxy.cut().await;
    database.drop().await;
}
