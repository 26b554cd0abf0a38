//! A MySQL that is killed, stands still, cuts connections, or refuses to write or to let anybody in.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn mysql_may_be_killed_under_load_and_started_again() {
    let _share = machine::quarter().await;
    let mut random = Random::unseeded();
    let mut mysqld = Mysqld::started().await;
    let mut scene = Scene::new(Site::on(&mysqld.url(), &[QUIET]), 6).await;
    for _ in 1..setting("GEOROOM_OUTAGES", 2) {
        scene.writers().wrote(random.below(200)).await;
        mysqld.kill();
        let ended = mysqld.start().await;
        scene.resumes(ended).await;
    }
    // The last time it is away for longer, and nothing follows.
    scene.writers().wrote(random.below(200)).await;
    mysqld.kill();
    scene.is_away().await;
    scene.pause().await;
    assert!(scene.written.refused > 0);
    let ended = mysqld.start().await;
    scene.converges(ended).await;
    scene.write();
    scene.resumes(ended).await;
    scene.end().await;
}

/// Nothing breaks off: MySQL says nothing.
#[tokio::test(flavor = "multi_thread")]
async fn mysql_may_stand_still_under_load() {
    let _share = machine::quarter().await;
    let mysqld = Mysqld::started().await;
    let mut scene = Scene::new(Site::on(&mysqld.url(), &[QUIET]), 6).await;
    for _ in 0..setting("GEOROOM_OUTAGES", 1).min(5) {
        let began = Instant::now();
        mysqld.signal("STOP");
        scene.is_away().await;
        sleep_until(began + Duration::from_secs(10)).await;
        mysqld.signal("CONT");
        let ended = Instant::now();
        scene.recovers(ended).await;
    }
    assert!(scene.written.refused > 0);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_may_be_cut_again_and_again() {
    ended_again_and_again(End::Cut, 20).await;
}

/// MySQL does not hear that they have ended, and what was locked by them stays so.
#[tokio::test(flavor = "multi_thread")]
async fn connections_may_end_without_mysql_hearing_of_it() {
    ended_again_and_again(End::Orphaned, 6).await;
}

async fn ended_again_and_again(how: End, times: usize) {
    let _share = machine::quarter().await;
    let mut random = Random::unseeded();
    let database = TestDatabase::create(Db::MySql).await;
    let proxy = Proxy::start(&database, None).await;
    let mut scene = Scene::new(Site::on(&proxy.url, &[QUIET]), 6).await;
    for _ in 0..times * setting("GEOROOM_OUTAGES", 1) {
        scene.writers().wrote(random.below(50)).await;
        sleep(Duration::from_millis(random.below(5) as u64)).await;
        proxy.end_all(how);
        let ended = Instant::now();
        scene.writers().wrote_all(CONVERGED_WITHIN).await;
        scene.resumes(ended).await;
    }
    proxy.end_all(how);
    let ended = Instant::now();
    scene.pause().await;
    scene.converges(ended).await;
    scene.end().await;
    proxy.cut().await;
    database.drop().await;
}

/// Nor do those whose time was up. A statement that was not waited for has an answer all the same, which
/// must not be taken for that to the next.
#[tokio::test(flavor = "multi_thread")]
async fn callers_who_go_away_leave_nothing_behind_for_others() {
    let database = TestDatabase::create(Db::MySql).await;
    let proxy = Proxy::start(&database, None).await;
    let server = Process::start(&[("DATABASE_URL", &proxy.url), QUIET]).await;
    let http = reqwest::Client::new();
    let post = http.post(format!("{}/location", server.api)).json(&json!({"geometry": point(0.5, 0.5)}));
    assert_eq!(post.send().await.unwrap().status(), StatusCode::CREATED);
    let clients = Clients::start();
    let mut member = clients.connect(&server.gateway).await;
    assert_eq!(member.join(1).await["version"], 1);
    let get = |path: &str| http.get(format!("{}/location/1{path}", server.api));
    let mut random = Random::unseeded();
    for _ in 0..40 * setting("GEOROOM_OUTAGES", 1) {
        // Each connection to MySQL is new, and has to be told its statements.
        proxy.end_all(End::Cut);
        let away = (0..32).map(|n| {
            let path = ["", "/history"][n % 2];
            get(path).timeout(Duration::from_micros(500 + random.below(8_000) as u64)).send()
        });
        join_all(away).await;
        for said in join_all((0..32).map(|_| get("").send())).await {
            let (status, body) = answer(said.unwrap()).await;
            assert_eq!((status, &body["id"]), (StatusCode::OK, &json!(1)), "{body}");
        }
    }
    assert_eq!(member.drain().await, Vec::<Value>::new(), "the room was not closed");
    server.stop().await;
    proxy.cut().await;
    database.drop().await;
}

/// What an administrator does to a table for a backup.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_table_is_waited_for_in_bounded_time() {
    let _share = machine::quarter().await;
    let database = TestDatabase::create(Db::MySql).await;
    let mut scene = Scene::new(Site::on(&database.url, &[QUIET]), 64).await;
    let admin = database.open().await;
    for _ in 0..setting("GEOROOM_OUTAGES", 1).min(5) {
        admin.execute_unprepared("LOCK TABLES location READ").await.unwrap();
        tokio::join!(scene.cannot_be_written(), scene.goes_on());
        assert_eq!(scene.read().send().await.unwrap().status(), StatusCode::OK);
        admin.execute_unprepared("UNLOCK TABLES").await.unwrap();
        let ended = Instant::now();
        scene.recovers(ended).await;
    }
    assert!(scene.written.refused > 0);
    admin.close().await.unwrap();
    scene.end().await;
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_mysql_is_read() {
    let _share = machine::quarter().await;
    let mysqld = Mysqld::started().await;
    let mut scene = Scene::new(Site::on(&mysqld.url(), &[QUIET]), 6).await;
    let admin = mysqld.open().await;
    let spared = [connection_id(&admin).await];
    // transaction_read_only is for connections made from then on, for as long as they last.
    for (variable, is_busy) in
        [("super_read_only", true), ("transaction_read_only", true), ("transaction_read_only", false)]
            .repeat(setting("GEOROOM_OUTAGES", 1))
    {
        if !is_busy {
            scene.pause().await;
        }
        admin.execute_unprepared(&format!("SET GLOBAL {variable} = ON")).await.unwrap();
        if variable == "transaction_read_only" {
            kill_others(&admin, &spared).await;
        }
        if !is_busy {
            scene.write();
        }
        tokio::join!(scene.cannot_be_written(), scene.goes_on());
        for path in ["/location", "/readyz"] {
            let (status, body) = scene.site.send(Method::GET, path, None).await;
            assert_eq!(status, StatusCode::OK, "{path}: {body}");
            assert!(path != "/readyz" || body["writes"] == "failing", "{body}");
        }
        assert_eq!(scene.read().send().await.unwrap().status(), StatusCode::OK);
        let off = format!("SET GLOBAL {variable} = OFF, GLOBAL read_only = OFF");
        admin.execute_unprepared(&off).await.unwrap();
        let ended = Instant::now();
        scene.recovers(ended).await;
    }
    assert!(scene.written.refused > 0);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mysql_with_no_connection_to_spare_is_waited_for() {
    noise::expect(&NO_CONNECTION);
    let _share = machine::quarter().await;
    let mysqld = Mysqld::started().await;
    let mut scene = Scene::new(Site::on(&mysqld.url(), &[QUIET]), 6).await;
    // An administrator's connection is one more than the limit, whoever has it.
    let (admin, other) = (mysqld.open().await, mysqld.open().await);
    let spared = [connection_id(&admin).await, connection_id(&other).await];
    admin.execute_unprepared("SET GLOBAL max_connections = 1").await.unwrap();
    kill_others(&admin, &spared).await;
    scene.is_away().await;
    scene.pause().await;
    assert!(scene.written.refused > 0);
    admin.execute_unprepared("SET GLOBAL max_connections = 100").await.unwrap();
    let ended = Instant::now();
    scene.converges(ended).await;
    scene.write();
    scene.resumes(ended).await;
    scene.end().await;
    drop(other);
}

/// Somebody changes the password, or the grants; what is connected is thrown out.
#[tokio::test(flavor = "multi_thread")]
async fn a_mysql_that_does_not_let_the_server_in_is_away() {
    let _share = machine::quarter().await;
    let mysqld = Mysqld::started().await;
    let admin = mysqld.open().await;
    admin.execute_unprepared("CREATE USER app").await.unwrap();
    admin.execute_unprepared("GRANT ALL ON *.* TO app").await.unwrap();
    let url = mysqld.url().replacen("root@", "app@", 1);
    let mut scene = Scene::new(Site::on(&url, &[QUIET]), 6).await;
    let spared = [connection_id(&admin).await];
    admin.execute_unprepared("ALTER USER app ACCOUNT LOCK").await.unwrap();
    kill_others(&admin, &spared).await;
    scene.is_away().await;
    scene.pause().await;
    assert!(scene.written.refused > 0);
    admin.execute_unprepared("ALTER USER app ACCOUNT UNLOCK").await.unwrap();
    let ended = Instant::now();
    scene.converges(ended).await;
    scene.write();
    scene.resumes(ended).await;
    scene.end().await;
}
