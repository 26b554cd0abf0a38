//! An SQLite file that is locked or cannot grow.

use super::*;

/// Such as a backup, or somebody with a shell.
#[tokio::test(flavor = "multi_thread")]
async fn an_sqlite_file_that_another_process_has_locked_is_waited_for() {
    let _share = machine::half().await;
    let database = TestDatabase::create(Db::Sqlite).await;
    let mut scene = Scene::new(Site::on(&database.url, &[QUIET]), 6).await;
    let other = database.open().await;
    other.execute_unprepared("PRAGMA busy_timeout = 10000").await.unwrap();
    for _ in 0..setting("GEOROOM_OUTAGES", 1).min(5) {
        other.execute_unprepared("BEGIN EXCLUSIVE").await.unwrap();
        let began = Instant::now();
        tokio::join!(scene.cannot_be_written(), scene.goes_on());
        assert_eq!(scene.read().send().await.unwrap().status(), StatusCode::OK, "there is a log to read");
        sleep_until(began + Duration::from_secs(8)).await;
        other.execute_unprepared("ROLLBACK").await.unwrap();
        let ended = Instant::now();
        scene.recovers(ended).await;
    }
    assert!(scene.written.refused > 0);
    other.close().await.unwrap();
    scene.end().await;
    database.drop().await;
}

/// As on a full disk: no file may grow, whoever asks.
#[tokio::test(flavor = "multi_thread")]
async fn an_sqlite_file_that_cannot_grow_is_read_and_written_once_it_can() {
    noise::expect(&DATABASE_AWAY);
    let database = TestDatabase::create(Db::Sqlite).await;
    let settings = [("API_ADDR", "127.0.0.1:0"), ("GATEWAY_ADDR", "127.0.0.1:0"), ("LOG_FORMAT", "json")];
    let mut command = Command::new("sh");
    command
        // Told by an error, as of a full disk, and not by a signal.
        .args(["-c", r#"trap "" XFSZ; exec "$0""#, env!("CARGO_BIN_EXE_georoom")])
        .env_clear()
        .envs(settings)
        .envs([("DATABASE_URL", database.url.as_str()), QUIET])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let server = Process::launch(command).await;
    let http = reqwest::Client::new();
    let location = format!("{}/location", server.api);
    let send = |method: Method, path: &str, lon: f64| {
        http.request(method, format!("{location}{path}")).json(&json!({"geometry": point(lon, 2.5)}))
    };
    let (status, made) = answer(send(Method::POST, "", 0.5).send().await.unwrap()).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let clients = Clients::start();
    let mut member = clients.connect(&server.gateway).await;
    assert_eq!(member.join(1).await["version"], 1);

    let mut last = made["data"]["location"].clone();
    for _ in 0..3 {
        server.limit("fsize", "0").await;
        for _ in 0..5 {
            refused(send(Method::PUT, "/1", 1.5)).await;
            refused(send(Method::POST, "", 1.5)).await;
        }
        let (status, read) = answer(http.get(format!("{location}/1")).send().await.unwrap()).await;
        assert_eq!((status, &read), (StatusCode::OK, &last), "what was acknowledged");
        server.limit("fsize", "unlimited").await;
        for _ in 0..20 {
            let (status, moved) = answer(send(Method::PUT, "/1", 2.5).send().await.unwrap()).await;
            assert_eq!(status, StatusCode::CREATED, "{moved}");
            let moved = moved["data"]["updatedLocationResult"].clone();
            assert_eq!(version(&moved), version(&last) + 1, "what was refused is not there");
            assert_eq!(member.event("chat").await["message"], moved);
            last = moved;
        }
    }
    assert_eq!(member.drain().await, Vec::<Value>::new());
    server.kill().await;
    let server = Process::start(&[("DATABASE_URL", &database.url), QUIET]).await;
    let (_, kept) = answer(http.get(format!("{}/location/1", server.api)).send().await.unwrap()).await;
    assert_eq!(kept, last, "what was acknowledged is in the file");
    server.stop().await;
    database.drop().await;
}
