//! What is promised must outlive the database's bad hours, and what the machine runs out of.
//!
//! Writers never pause and followers check what they are sent while something is done to the database; at
//! the end nothing acknowledged may be missing, done twice or in another order. `GEOROOM_OUTAGES` says how
//! often, `GEOROOM_SLOW` how many slow connections; `make soak` asks for more than `make test`.

use std::{
    collections::BTreeMap,
    env,
    fs::File,
    hash::{BuildHasher, RandomState},
    ops::Range,
    process::Stdio,
    time::Duration,
};

use futures_util::future::join_all;
use reqwest::{Method, RequestBuilder, StatusCode, header::RETRY_AFTER};
use sea_orm::{ConnectionTrait, DatabaseBackend, DatabaseConnection, Statement};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

use crate::{
    crash::check,
    on_both_databases,
    support::{
        Db, TestDatabase, answer,
        clients::{Clients, KINDS},
        followers::{Entry, Followers},
        history::version,
        machine,
        mysqld::Mysqld,
        noise::{self, DATABASE_AWAY, NO_CONNECTION},
        point,
        process::{Process, run, signal},
        proxy::{End, Proxy},
        site::Site,
        truth::Random,
        writers::{Outage, REFUSED_WITHIN, Writers, Written},
    },
};

on_both_databases!(
    what_another_server_commits_reaches_the_rooms_though_nothing_follows,
    a_server_out_of_descriptors_goes_on_once_there_are_some,
);

const QUIET: (&str, &str) = ("RUST_LOG", "warn,georoom::server=info");
/// After a fault, until every subscriber shows what was committed last.
const CONVERGED_WITHIN: Duration = Duration::from_secs(5);
/// After a fault, until the first write is done.
const RESUMED_WITHIN: Duration = Duration::from_secs(2);
/// What needs no database does not wait for one.
const AT_ONCE: Duration = Duration::from_secs(2);
/// Longer than anything here takes on a busy machine; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(30);

fn setting(name: &str, default: usize) -> usize {
    env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}: a number")))
}

/// Not the same from run to run: neither is when a fault comes.
fn random() -> Random {
    Random(RandomState::new().hash_one(()))
}

/// A server whose database is in for trouble, those who write and those who follow.
struct Scene {
    site: Site,
    server: Process,
    http: reqwest::Client,
    clients: Clients,
    locations: Vec<u64>,
    followers: Followers,
    writers: Option<Writers>,
    written: Written,
    users: Range<u32>,
}

impl Scene {
    async fn new(site: Site, writers: u32) -> Self {
        noise::expect(&DATABASE_AWAY);
        let server = site.start().await;
        let locations = site.create(6).await;
        let mut followers = Followers::start(1, &site.gateway);
        for n in 0..12 {
            // In three rooms each; from the beginning, or from now on.
            let since = (n % 2 == 0).then_some(0);
            let rooms: Vec<Entry> = (0..3).map(|at| (locations[(n + at * 2) % 6], since)).collect();
            followers.add(KINDS[n % KINDS.len()], &rooms);
        }
        followers.reach(&BTreeMap::new()).await;
        let mut scene = Self {
            site,
            server,
            http: reqwest::Client::new(),
            clients: Clients::start(),
            locations,
            followers,
            writers: None,
            written: Written::default(),
            users: 0..writers,
        };
        scene.write();
        scene.writers().wrote(30).await;
        scene
    }

    /// Has new writers begin.
    fn write(&mut self) {
        let users = self.users.clone();
        self.users = users.end..users.end + users.len() as u32;
        let (api, locations) = (&self.site.api, &self.locations);
        self.writers = Some(Writers::start(api, locations, users, Outage::Refused, None));
    }

    fn writers(&mut self) -> &mut Writers {
        self.writers.as_mut().expect("writers")
    }

    /// Lets everybody wait for the last answer.
    async fn pause(&mut self) {
        let written = self.writers.take().expect("writers").stop().await;
        self.keep(written);
    }

    fn keep(&mut self, written: Written) {
        self.written.answered.extend(written.answered);
        self.written.unanswered.extend(written.unanswered);
        self.written.refused += written.refused;
        self.written.slowest = self.written.slowest.max(written.slowest);
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.site.api))
    }

    /// Not to a location that is followed: it might be committed after all.
    fn post(&self) -> RequestBuilder {
        self.request(Method::POST, "/location").json(&json!({"geometry": point(1.0, 2.0)}))
    }

    /// What no room knows.
    fn read(&self) -> RequestBuilder {
        self.request(Method::GET, &format!("/location/{}/history", self.locations[0]))
    }

    /// What needs the database is refused, in time; the rest goes on.
    async fn is_away(&self) {
        tokio::join!(
            refused(self.read()),
            refused(self.request(Method::GET, "/location")),
            refused(self.request(Method::GET, "/readyz")),
            self.cannot_be_written(),
            self.goes_on(),
        );
    }

    async fn cannot_be_written(&self) {
        join_all((0..8).map(|_| refused(self.post()))).await;
    }

    /// Live rooms are joined and read from memory.
    async fn goes_on(&self) {
        let mut client =
            timeout(AT_ONCE * 2, self.clients.connect(&self.site.gateway)).await.expect("a socket");
        let mut other =
            timeout(AT_ONCE * 2, self.clients.connect(&self.site.gateway)).await.expect("a socket");
        let joins = async {
            for id in &self.locations {
                let head = client.join(*id).await["version"].clone();
                let ack = other.ask("join_room", json!({"locationId": id, "since": head})).await;
                assert_eq!(ack, json!({"roomName": id.to_string(), "version": head, "recovered": true}));
            }
            // Side by side: a database that says nothing is given a second.
            let read = async |id: &u64| {
                answer(self.request(Method::GET, &format!("/location/{id}")).send().await.unwrap()).await
            };
            for (status, feature) in join_all(self.locations.iter().map(read)).await {
                assert_eq!(status, StatusCode::OK, "{feature}");
            }
            assert_eq!(other.drain().await, Vec::<Value>::new());
        };
        timeout(AT_ONCE, joins).await.expect("live rooms can be joined without the database");
        let healthy = timeout(AT_ONCE, self.request(Method::GET, "/healthz").send());
        assert_eq!(healthy.await.expect("at once").unwrap().status(), StatusCode::OK);
        client.disconnect();
        other.disconnect();
    }

    /// Writes and reads are done again, in time.
    async fn resumes(&mut self, ended: Instant) {
        let again = timeout_at(ended + RESUMED_WITHIN, self.writers().wrote(1)).await;
        again.unwrap_or_else(|_| panic!("no write within {RESUMED_WITHIN:?}"));
        println!("written again after {:?}", ended.elapsed());
        let until = ended + RESUMED_WITHIN;
        let answered = timeout_at(until, succeeded(|| self.read(), StatusCode::OK)).await;
        answered.unwrap_or_else(|_| panic!("no read within {RESUMED_WITHIN:?}"));
    }

    /// Service goes on and everybody has what was committed; then there are new writers.
    async fn recovers(&mut self, ended: Instant) {
        self.resumes(ended).await;
        self.pause().await;
        self.converges(ended).await;
        self.write();
    }

    /// Everybody comes to have what was committed, though nobody writes any more.
    async fn converges(&mut self, ended: Instant) {
        assert!(self.writers.is_none());
        let until = ended + CONVERGED_WITHIN;
        let answered = timeout_at(until, succeeded(|| self.read(), StatusCode::OK)).await;
        answered.unwrap_or_else(|_| panic!("no read within {CONVERGED_WITHIN:?}"));
        let heads = self.site.heads(&self.locations).await;
        self.followers.reach_within(until.saturating_duration_since(Instant::now()), &heads).await;
        println!("all there after {:?}", ended.elapsed());
    }

    /// All is as it should be, and was.
    async fn end(mut self) {
        if self.writers.is_none() {
            self.write();
        }
        // Also what was committed last is followed by something, in order.
        self.writers().wrote_all(CONVERGED_WITHIN).await;
        self.pause().await;
        let heads = self.site.heads(&self.locations).await;
        self.followers.reach_within(CONVERGED_WITHIN, &heads).await;
        let followed = self.followers.summary().await;
        for follower in &followed {
            assert_eq!((follower.connects, follower.reasons.len()), (1, 0), "sockets stay: {follower:#?}");
        }
        let Written { answered, refused, slowest, .. } = &self.written;
        println!("{} written, {refused} refused, each within {slowest:?}", answered.len());
        check(&self.site, &self.written, &followed).await;
        self.server.stop().await;
        self.site.drop().await;
    }
}

/// 503 with `Retry-After`, within the time that this may take.
async fn refused(request: RequestBuilder) {
    let started = Instant::now();
    let said = timeout(REFUSED_WITHIN, request.send()).await;
    let said = said.unwrap_or_else(|_| panic!("no answer within {REFUSED_WITHIN:?}")).expect("an answer");
    let retry_after = said.headers().contains_key(RETRY_AFTER);
    let (status, body) = answer(said).await;
    assert_eq!(
        (status, &body["code"], retry_after),
        (StatusCode::SERVICE_UNAVAILABLE, &json!("storage_unavailable"), true),
        "{body} after {:?}",
        started.elapsed()
    );
}

/// Again and again until it is, every other answer being 503.
async fn succeeded(request: impl Fn() -> RequestBuilder, status: StatusCode) {
    loop {
        let (said, body) = answer(request().send().await.expect("an answer")).await;
        if said == status {
            return;
        }
        assert_eq!(said, StatusCode::SERVICE_UNAVAILABLE, "{body}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_may_be_killed_under_load_and_started_again() {
    let _share = machine::half().await;
    let mut random = random();
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
    let _share = machine::half().await;
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
    let _share = machine::half().await;
    let mut random = random();
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
    let mut random = random();
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
    let _share = machine::half().await;
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
    let _share = machine::half().await;
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
            end_others(&admin, &spared).await;
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

/// Ends every connection but this one and those of `spared`.
async fn end_others(admin: &DatabaseConnection, spared: &[u64]) {
    let list = Statement::from_string(DatabaseBackend::MySql, "SHOW PROCESSLIST");
    for row in admin.query_all_raw(list).await.expect("the connections") {
        let id: i64 = row.try_get("", "Id").expect("an id");
        if !spared.contains(&(id as u64)) {
            // It may have gone by itself.
            let _ = admin.execute_unprepared(&format!("KILL {id}")).await;
        }
    }
}

async fn connection_id(connection: &DatabaseConnection) -> u64 {
    let sql = Statement::from_string(DatabaseBackend::MySql, "SELECT CONNECTION_ID() AS id");
    connection.query_one_raw(sql).await.unwrap().expect("a row").try_get("", "id").expect("an id")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mysql_with_no_connection_to_spare_is_waited_for() {
    noise::expect(&NO_CONNECTION);
    let _share = machine::half().await;
    let mysqld = Mysqld::started().await;
    let mut scene = Scene::new(Site::on(&mysqld.url(), &[QUIET]), 6).await;
    // An administrator's connection is one more than the limit, whoever has it.
    let (admin, other) = (mysqld.open().await, mysqld.open().await);
    let spared = [connection_id(&admin).await, connection_id(&other).await];
    admin.execute_unprepared("SET GLOBAL max_connections = 1").await.unwrap();
    end_others(&admin, &spared).await;
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
    let _share = machine::half().await;
    let mysqld = Mysqld::started().await;
    let admin = mysqld.open().await;
    admin.execute_unprepared("CREATE USER app").await.unwrap();
    admin.execute_unprepared("GRANT ALL ON *.* TO app").await.unwrap();
    let url = mysqld.url().replacen("root@", "app@", 1);
    let mut scene = Scene::new(Site::on(&url, &[QUIET]), 6).await;
    let spared = [connection_id(&admin).await];
    admin.execute_unprepared("ALTER USER app ACCOUNT LOCK").await.unwrap();
    end_others(&admin, &spared).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_server_may_start_before_its_mysql() {
    let mut mysqld = Mysqld::new().await;
    let started = Instant::now();
    let server = Process::start(&[("DATABASE_URL", &mysqld.url())]).await;
    println!("started after {:?}", started.elapsed());
    assert!(started.elapsed() < REFUSED_WITHIN);
    let http = reqwest::Client::new();
    let post = || http.post(format!("{}/location", server.api)).json(&json!({"geometry": point(1.0, 2.0)}));
    let get = |path: &str| http.get(format!("{}{path}", server.api));
    assert_eq!(get("/healthz").send().await.unwrap().status(), StatusCode::OK);
    let clients = Clients::start();
    let mut early = clients.connect(&server.gateway).await;
    tokio::join!(refused(post()), refused(get("/readyz")), refused(get("/location")));
    let ack = early.ask("join_room", json!({"locationId": 1})).await;
    assert_eq!((&ack["status"], &ack["code"]), (&json!("error"), &json!("storage_unavailable")));

    let ended = mysqld.start().await;
    let all = async {
        succeeded(post, StatusCode::CREATED).await;
        succeeded(|| get("/readyz"), StatusCode::OK).await;
        succeeded(|| get("/location/1/history"), StatusCode::OK).await;
    };
    timeout_at(ended + RESUMED_WITHIN, all).await.expect("it is migrated and used");
    println!("used after {:?}", ended.elapsed());
    assert_eq!(early.join(1).await["version"], 1, "on the socket that was there before");
    server.stop().await;
}

/// Nothing that comes right by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_stops_the_start_and_is_not_shown() {
    let database = TestDatabase::create(Db::MySql).await;
    let url = database.url.replacen("root@", "root:hunter2@", 1);
    assert_ne!(url, database.url);
    let ended = run(
        &[
            ("DATABASE_URL", &url),
            ("API_ADDR", "127.0.0.1:0"),
            ("GATEWAY_ADDR", "127.0.0.1:0"),
            ("RUST_LOG", "debug"),
        ],
        &[],
    )
    .await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.starts_with("georoom: DATABASE_URL: "), "{ended:?}");
    assert_eq!(ended.stderr.trim_end().lines().count(), 1, "{ended:?}");
    assert!(ended.stderr.contains("denied"), "{ended:?}");
    assert!(!format!("{}{}", ended.stderr, ended.stdout).contains("hunter2"), "{ended:?}");
    database.drop().await;
}

/// Nothing tells the first server of it.
async fn what_another_server_commits_reaches_the_rooms_though_nothing_follows(db: Db) {
    let database = TestDatabase::create(db).await;
    let settings = [("DATABASE_URL", database.url.as_str()), QUIET];
    let (first, second) = (Process::start(&settings).await, Process::start(&settings).await);
    let http = reqwest::Client::new();
    let send = async |method: Method, path: &str| {
        let request = http.request(method, format!("{}/location{path}", second.api));
        answer(request.json(&json!({"geometry": point(1.5, 2.5)})).send().await.unwrap()).await
    };
    for id in 1..=3 {
        let (_, made) = send(Method::POST, "").await;
        assert_eq!(made["data"]["location"]["id"], id);
    }
    let clients = Clients::start();
    let mut members = Vec::new();
    for kind in KINDS {
        let mut member = clients.connect_as(kind.0, kind.1, &first.gateway).await;
        for id in 1..=3 {
            assert_eq!(member.join(id).await["version"], 1);
        }
        members.push(member);
    }

    let (status, moved) = send(Method::PUT, "/1").await;
    assert_eq!(status, StatusCode::CREATED, "{moved}");
    let converged = timeout(CONVERGED_WITHIN, async {
        for member in &mut members {
            assert_eq!(member.event("chat").await["message"], moved["data"]["updatedLocationResult"]);
        }
    });
    converged.await.expect("the newest version in time");

    // Several at a time, all of which are sent.
    for _ in 0..5 {
        send(Method::PUT, "/2").await;
    }
    let converged = timeout(CONVERGED_WITHIN, async {
        for member in &mut members {
            member.follow(2, 1, 6).await;
        }
    });
    converged.await.expect("every version in time");

    assert_eq!(send(Method::DELETE, "/3").await.0, StatusCode::NO_CONTENT);
    let converged = timeout(CONVERGED_WITHIN, async {
        for member in &mut members {
            let closed = member.event("room_closed").await;
            assert_eq!(closed, json!({"roomName": "3", "reason": "deleted"}));
        }
    });
    converged.await.expect("the end of the room in time");
    for member in &mut members {
        assert_eq!(member.drain().await, Vec::<Value>::new());
    }
    first.stop().await;
    second.stop().await;
    database.drop().await;
}

/// Connections that say nothing, or say it slowly.
async fn idle(url: &str, count: usize, begins: &str) -> Vec<TcpStream> {
    let addr = url.strip_prefix("http://").expect("a URL");
    let mut streams = Vec::new();
    while streams.len() < count {
        // Not more at a time than a listener's queue takes.
        let some = (count - streams.len()).min(100);
        for stream in join_all((0..some).map(|_| TcpStream::connect(addr))).await {
            let mut stream = stream.expect("a connection");
            stream.write_all(begins.as_bytes()).await.expect("a beginning");
            streams.push(stream);
        }
    }
    streams
}

async fn a_server_out_of_descriptors_goes_on_once_there_are_some(db: Db) {
    noise::expect(&["a connection could not be accepted"]);
    let database = TestDatabase::create(db).await;
    let mut server = Process::start(&[("DATABASE_URL", &database.url), QUIET]).await;
    let clients = Clients::start();
    let http = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
    let put = || {
        let request = http.put(format!("{}/location/1", server.api));
        request.json(&json!({"geometry": point(1.5, 2.5)}))
    };
    let post = http.post(format!("{}/location", server.api)).json(&json!({"geometry": point(0.5, 0.5)}));
    assert_eq!(post.send().await.unwrap().status(), StatusCode::CREATED);
    let mut member = clients.connect(&server.gateway).await;
    assert_eq!(member.join(1).await["version"], 1);

    let began = Instant::now();
    for round in 0..2 {
        server.limit("nofile", "80").await;
        let mut api = timeout(PATIENCE, idle(&server.api, 300, "")).await.expect("they wait in line");
        let mut gateway = timeout(PATIENCE, idle(&server.gateway, 300, "")).await.expect("they wait in line");
        server.log.find("a connection could not be accepted", &[]).await;
        server.log.read.clear();
        // Who is in already is served all the same.
        let (ack, seen) = member.ask_seeing("chat", json!({"message": "hi", "roomName": "1"})).await;
        assert_eq!((&ack["message"], seen.len()), (&json!("hi"), 1), "{seen:?}");
        sleep(Duration::from_secs(1)).await;
        api.truncate(5);
        gateway.truncate(5);
        timeout(PATIENCE, succeeded(put, StatusCode::CREATED)).await.expect("it goes on");
        assert_eq!(member.event("chat").await["version"], 2 + round);
        let mut other = clients.connect(&server.gateway).await;
        assert_eq!(other.join(1).await["version"], 2 + round);
        other.disconnect();
        // Those that are left have had their place.
        for stream in api.iter_mut().chain(&mut gateway) {
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
            let mut text = String::new();
            timeout(PATIENCE, stream.read_to_string(&mut text)).await.expect("an answer").unwrap();
            assert!(text.starts_with("HTTP/1.1 "), "{text}");
        }
    }
    let lines = server.stop().await.whole().await;
    let said = lines.iter().filter(|line| line["message"] == "a connection could not be accepted").count();
    assert!(said as u64 <= 2 * (began.elapsed().as_secs() + 1), "{said} lines");
    database.drop().await;
}

/// In the soak also until they are closed, which takes them half a minute.
#[tokio::test(flavor = "multi_thread")]
async fn slow_connections_hold_up_nobody() {
    let _share = machine::whole().await;
    let own = std::process::id().to_string();
    let (count, soak) = (setting("GEOROOM_SLOW", 2_000), env::var("GEOROOM_SLOW").is_ok());
    // Its own end of each, beside the other tests; the server inherits it.
    let limit = format!("--nofile={}:", count + 8_000);
    let status = Command::new("prlimit").args(["--pid", &own, &limit]).status().await.expect("prlimit");
    assert!(status.success(), "{limit}");
    let database = TestDatabase::create(Db::Sqlite).await;
    let server = Process::start(&[("DATABASE_URL", &database.url), QUIET]).await;
    let clients = Clients::start();
    let mut member = clients.connect(&server.gateway).await;
    let http = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
    let post = http.post(format!("{}/location", server.api)).json(&json!({"geometry": point(0.5, 0.5)}));
    assert_eq!(post.send().await.unwrap().status(), StatusCode::CREATED);
    member.join(1).await;

    let began = Instant::now();
    let mut slow = Vec::new();
    for (url, begins) in [
        (&server.api, ""),
        (&server.api, "PUT /location/1 HTTP/1.1\r\nHost: x\r\nX-Slo"),
        (&server.gateway, "G"),
        (&server.gateway, "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\n"),
    ] {
        slow.extend(idle(url, count / 4, begins).await);
    }
    for turn in 2..30 {
        let started = Instant::now();
        let body = json!({"geometry": point(1.5, 2.5)});
        let put = http.put(format!("{}/location/1", server.api)).json(&body).send();
        let put = timeout(Duration::from_secs(1), put).await.expect("an answer within a second");
        assert_eq!(put.unwrap().status(), StatusCode::CREATED);
        assert_eq!(member.event("chat").await["version"], turn);
        let mut other = clients.connect(&server.gateway).await;
        assert_eq!(other.join(1).await["version"], turn);
        other.disconnect();
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    }
    if soak {
        let closed = join_all(slow.iter_mut().map(async |stream| {
            let mut rest = Vec::new();
            // A goodbye or none, an end or a reset: it is closed.
            let _ = stream.read_to_end(&mut rest).await;
        }));
        timeout_at(began + Duration::from_secs(60), closed).await.expect("they are closed");
        let after = began.elapsed();
        assert!(after > Duration::from_secs(25), "{after:?}");
    }
    drop(slow);
    server.stop().await;
    database.drop().await;
}

/// What is to be logged there is lost, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_output_goes_nowhere_serves() {
    for (output, shell) in
        [("full", r#"exec "$0""#), ("read by nobody", r#"exec "$0""#), ("closed", r#"exec "$0" >&- 2>&-"#)]
    {
        let to = || match output {
            "full" => Stdio::from(File::options().write(true).open("/dev/full").expect("/dev/full")),
            _ => Stdio::piped(),
        };
        for format in ["text", "json"] {
            let site = Site::new(Db::Sqlite, &[("LOG_FORMAT", format), ("RUST_LOG", "debug")]).await;
            let mut command = Command::new("sh");
            command.args(["-c", shell, env!("CARGO_BIN_EXE_georoom")]).env_clear().envs(site.settings());
            command.stdin(Stdio::null()).stdout(to()).stderr(to()).kill_on_drop(true);
            let mut child = command.spawn().expect("sh");
            drop((child.stdout.take(), child.stderr.take()));
            let up = async {
                let http = reqwest::Client::new();
                while http.get(format!("{}/healthz", site.api)).send().await.is_err() {
                    sleep(Duration::from_millis(10)).await;
                }
            };
            timeout(PATIENCE, up).await.unwrap_or_else(|_| panic!("not up: {output}, {format}"));
            let ids = site.create(2).await;
            let clients = Clients::start();
            let mut member = clients.connect(&site.gateway).await;
            assert_eq!(member.join(ids[0]).await["version"], 1);
            assert_eq!(site.move_all(&ids).await[&ids[0]], 2);
            assert_eq!(member.event("chat").await["version"], 2);
            let (status, _) = site.send(Method::GET, "/nowhere", None).await;
            assert_eq!(status, StatusCode::NOT_FOUND);
            signal(&child, "TERM").await;
            let ended = timeout(Duration::from_secs(10), child.wait()).await.expect("the end").unwrap();
            assert_eq!(ended.code(), Some(0), "{output}, {format}");
            site.drop().await;
        }
    }
}
