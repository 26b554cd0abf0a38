//! Rows and files that somebody else has locked.

use super::*;

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
