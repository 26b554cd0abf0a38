//! What is kept, and what goes because it is old or too much.

use super::*;

on_both_databases!(
    all_ten_thousand_members_are_told,
    what_is_too_old_goes,
    what_is_too_much_goes,
    kill_9_leaves_push_and_store_agreeing,
);

async fn all_ten_thousand_members_are_told(db: Db) {
    let server = TestServer::start_with(db, LOCKED).await;
    let owner = Pass::user(10);
    // Those of two in one transaction are too many; so are two names of one.
    let ids = [owner.create(&server).await, owner.create(&server).await];
    let raw = server.database.open().await;
    for id in ids {
        let members: Vec<_> = (100..10_100).map(|user| format!("({id},{user},1,5)")).collect();
        let sql =
            format!("INSERT INTO member (location_id, user_id, role, added_at) VALUES {}", members.join(","));
        raw.execute_unprepared(&sql).await.expect("members");
    }
    if db == Db::MySql {
        // Its ids are not given again after a rollback.
        let tried = "CREATE TABLE tried (id INT AUTO_INCREMENT PRIMARY KEY)";
        raw.execute_unprepared(tried).await.expect("a table");
        let count = "CREATE TRIGGER count AFTER INSERT ON history FOR EACH ROW INSERT INTO tried VALUES ()";
        raw.execute_unprepared(count).await.expect("a trigger");
    }
    let names = (0..4).map(|n| patch(&owner, &server, ids[n % 2], json!({"name": format!("bike {n}")})));
    let started = tokio::time::Instant::now();
    join_all(names.map(Box::pin)).await;
    println!("4 names told 10,000 each: {:?}", started.elapsed());
    for user in [100, 5_000, 10_099] {
        let kept = list(&Pass::user(user), &server, "").await;
        let mut names: Vec<_> =
            items(&kept).iter().map(|item| item["fields"]["newName"].to_string()).collect();
        names.sort();
        assert_eq!(names, [0, 1, 2, 3].map(|n| format!("\"bike {n}\"")), "to {user}");
    }
    let number = async |what: &str| {
        let sql =
            Statement::from_string(raw.get_database_backend(), format!("SELECT CAST({what} AS SIGNED)"));
        let row = raw.query_one_raw(sql).await.expect("an answer").expect("a row");
        row.try_get_by_index::<i64>(0).expect("a number")
    };
    assert_eq!(number("(SELECT COUNT(*) FROM notification)").await, 40_000);
    if db == Db::MySql {
        assert_eq!(number("(SELECT MAX(id) FROM tried)").await, 4, "written to be rolled back");
    }
    server.stop().await;
}

/// Waits until so many are left; returns the newest.
async fn left(server: &TestServer, pass: &Pass, total: u64) -> Value {
    let gone = async {
        loop {
            let kept = list(pass, server, "?perPage=100").await;
            if counts(&kept)[2] <= total {
                return kept;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("fewer")
}

/// Waits until nothing is left of what people were told.
async fn no_notices(raw: &DatabaseConnection) {
    let gone = async {
        loop {
            let sql = Statement::from_string(raw.get_database_backend(), "SELECT COUNT(*) FROM notice");
            let left = raw.query_one_raw(sql).await.expect("a table").expect("a row");
            if left.try_get_by_index::<i64>(0).expect("a number") == 0 {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("no notices");
}

async fn what_is_too_old_goes(db: Db) {
    let server = TestServer::start_with(db, &[KEY, ("NOTIFICATION_AGE", "4s")]).await;
    let (owner, member) = (Pass::user(10), Pass::user(11));
    let id = owner.create(&server).await;
    for user in 11..20 {
        owner.grant(&server, id, user, "viewer").await;
    }
    for n in 0..5 {
        patch(&owner, &server, id, json!({"name": format!("bike {n}")})).await;
    }
    // A user the sweep comes to before them has some all the while that are not too old.
    let before = Pass::user(1);
    let other = before.create(&server).await;
    before.grant(&server, other, 2, "viewer").await;
    let telling = async {
        loop {
            patch(&before, &server, other, json!({"name": "car"})).await;
            patch(&before, &server, other, json!({"name": "boat"})).await;
            sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::select! {
        () = telling => {}
        _ = left(&server, &member, 0) => {}
    }
    assert!(counts(&list(&Pass::user(2), &server, "").await)[2] > 0);
    let raw = server.database.open().await;
    no_notices(&raw).await;
    drop(raw);
    server.stop().await;
}

async fn what_is_too_much_goes(db: Db) {
    // Of one person's deeds a quarter of that.
    let server = TestServer::start_with(db, &[KEY, ("NOTIFICATION_COUNT", "20")]).await;
    let (owner, member) = (Pass::user(10), Pass::user(11));
    let id = owner.create(&server).await;
    owner.grant(&server, id, 11, "viewer").await;
    for n in 0..80 {
        patch(&owner, &server, id, json!({"name": format!("bike {n}")})).await;
    }
    // And up to 64 that came since.
    let kept = left(&server, &member, 5 + 64).await;
    let names: Vec<_> = items(&kept).iter().map(|item| item["fields"]["newName"].clone()).collect();
    assert!(names.len() >= 5, "{names:?}");
    let newest: Vec<_> = (0..80).rev().take(names.len()).map(|n| json!(format!("bike {n}"))).collect();
    assert_eq!(names, newest);
    // Of whom nobody hears anything new, too.
    let database = server.halt().await;
    let server = TestServer::start_on(database, &[KEY, ("NOTIFICATION_COUNT", "12")]).await;
    let kept = left(&server, &member, 3).await;
    assert_eq!(items(&kept).len(), 3);
    server.stop().await;
}

/// Whoever removes them finds out, too, that nobody answers any more.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_goes_also_where_connections_have_fallen_silent() {
    let database = TestDatabase::create(Db::MySql).await;
    let raw = database.open().await;
    let proxy = Proxy::start(&database, None).await;
    let settings = [KEY, ("DATABASE_URL", proxy.url.as_str()), ("NOTIFICATION_AGE", "2s")];
    let server = TestServer::start_on(database, &settings).await;
    let owner = Pass::user(10);
    let id = owner.create(&server).await;
    owner.grant(&server, id, 11, "viewer").await;
    proxy.end_all(End::Silent);
    no_notices(&raw).await;
    drop(raw);
    server.stop().await;
    proxy.cut().await;
}

/// On SQLite they need the connection that the writer has.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_reads_theirs_does_not_keep_others_from_writing() {
    let server = TestServer::start_with(Db::Sqlite, LOCKED).await;
    let owner = Pass::user(10);
    let id = owner.create(&server).await;
    let (stop, stopped) = watch::channel(false);
    let read = AtomicU64::new(0);
    let readers = (0..60).map(|_| async {
        while !*stopped.borrow() {
            owner.must(&server, Method::POST, "/notification/read-all", None).await;
            read.fetch_add(1, Ordering::Relaxed);
        }
    });
    let writes = async {
        for _ in 0..20 {
            owner.mv(&server, id).await;
        }
        stop.send(true).expect("readers");
        read.load(Ordering::Relaxed)
    };
    let (_, read) = tokio::join!(join_all(readers), writes);
    println!("{read} reads beside 20 writes");
    assert!(read < 20 * 30, "{read} went before 20 writes");
    server.stop().await;
}

/// SQLite gives the id of a notice again that was rolled back.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_was_told_proves_nothing() {
    noise::expect(&[FAILED]);
    let server = TestServer::start_with(Db::Sqlite, LOCKED).await;
    let (owner, other) = (Pass::user(10), Pass::user(20));
    let (id, renamed) = (owner.create(&server).await, other.create(&server).await);
    other.grant(&server, renamed, 21, "viewer").await;
    let raw = server.database.open().await;
    // From now on no COMMIT of a new member succeeds.
    for sql in [
        "CREATE TABLE nobody (id INTEGER PRIMARY KEY)",
        "CREATE TABLE refused (id INTEGER REFERENCES nobody (id) DEFERRABLE INITIALLY DEFERRED)",
        "CREATE TRIGGER refuse AFTER INSERT ON member BEGIN INSERT INTO refused VALUES (1); END",
    ] {
        raw.execute_unprepared(sql).await.expect(sql);
    }
    let done = AtomicBool::new(false);
    let rename = async |by: u64| {
        let mut n = 0;
        while !done.load(Ordering::Relaxed) {
            n += 1;
            patch(&other, &server, renamed, json!({"name": format!("{by} {n}")})).await;
        }
    };
    let add = async {
        for user in 11..14 {
            let path = format!("/location/{id}/members/{user}");
            let added = owner.send(&server, Method::PUT, &path, Some(&json!({"role": "viewer"}))).await;
            assert_eq!(added.status(), StatusCode::INTERNAL_SERVER_ERROR);
        }
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(join_all((0..4).map(rename)), add);
    let members = owner.get(&server, &format!("/location/{id}/members")).await.1;
    assert_eq!(members["members"], json!([]));
    drop(raw);
    server.stop().await;
}

/// What one owner has done, as far as it was answered.
#[derive(Default)]
struct Done {
    names: Vec<String>,
    members: Vec<u64>,
}

async fn kill_9_leaves_push_and_store_agreeing(db: Db) {
    const OWNERS: u64 = 6;
    const LISTENER: u64 = 500;
    let _share = machine::half().await;
    let quiet = ("RUST_LOG", "warn,georoom::server=info");
    let site = Site::new(db, &[quiet, KEY, ("NOTIFICATION_COUNT", "100000")]).await;
    let mut server = site.start().await;
    let clients = Clients::start();
    let mut opts = Pass::user(LISTENER).opts(KINDS[0]);
    for (name, value) in [
        ("reconnection", json!(true)),
        ("reconnectionDelay", json!(20)),
        ("reconnectionDelayMax", json!(100)),
    ] {
        opts[name] = value;
    }
    let mut listener = clients.open("4", &site.gateway, opts).hearing_all();
    listener.connected().await;
    let http = reqwest::Client::new();
    let send = async |owner: u64, method: Method, path: String, body: Option<Value>| {
        let request =
            http.request(method, format!("{}{path}", site.api)).bearer_auth(mint(owner, None, false));
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        let response = request.send().await.ok()?;
        let status = response.status();
        let text = response.text().await.ok()?;
        Some((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
    };
    let mut ids = BTreeMap::new();
    for owner in 0..OWNERS {
        let body = json!({"geometry": point(1.5, 1.5)});
        let made = send(owner, Method::POST, "/location".into(), Some(body)).await.expect("an answer").1;
        let id = made["data"]["location"]["id"].as_u64().expect("an id");
        let path = format!("/location/{id}/members/{LISTENER}");
        send(owner, Method::PUT, path, Some(json!({"role": "viewer"}))).await.expect("an answer");
        ids.insert(owner, id);
    }
    let (stop, stopped) = watch::channel(false);
    let (count, mut counted) = watch::channel(0_usize);
    let work = (0..OWNERS).map(|owner| {
        let (send, id, stopped, count) = (&send, ids[&owner], stopped.clone(), &count);
        async move {
            let mut done = Done::default();
            let mut n = 0;
            while !*stopped.borrow() {
                n += 1;
                let name = format!("{owner} {n}");
                let body = json!({"properties": {"name": name}});
                let renamed = send(owner, Method::PUT, format!("/location/{id}"), Some(body)).await;
                let member = 1_000 + n;
                let path = format!("/location/{id}/members/{member}");
                let added = send(owner, Method::PUT, path, Some(json!({"role": "viewer"}))).await;
                match renamed {
                    Some((StatusCode::CREATED, _)) => done.names.push(name),
                    Some(other) => panic!("{other:?}"),
                    None => sleep(Duration::from_millis(5)).await,
                }
                match added {
                    Some((StatusCode::OK, _)) => done.members.push(member),
                    Some(other) => panic!("{other:?}"),
                    None => sleep(Duration::from_millis(5)).await,
                }
                count.send_modify(|count| *count += 1);
            }
            done
        }
    });
    let kills = async {
        for round in 0..3 {
            let until = *counted.borrow() + 20 + 7 * round;
            timeout(PATIENCE, counted.wait_for(|count| *count >= until))
                .await
                .expect("work")
                .expect("workers");
            server.kill().await;
            server = site.start().await;
        }
        let until = *counted.borrow() + 20;
        timeout(PATIENCE, counted.wait_for(|count| *count >= until)).await.expect("work").expect("workers");
        stop.send(true).expect("workers");
        server
    };
    let (done, server) = tokio::join!(join_all(work), kills);

    let all = async |user: u64| {
        let mut all: Vec<Value> = Vec::new();
        for page in 1.. {
            let path = format!("/notification?perPage=100&page={page}");
            let kept = send(user, Method::GET, path, None).await.expect("an answer").1;
            all.extend(items(&kept).iter().cloned());
            if all.len() as u64 >= counts(&kept)[2] {
                break;
            }
        }
        all
    };
    let stored = all(LISTENER).await;
    let by_id: BTreeMap<_, _> = stored.iter().map(|item| (item["id"].as_u64(), item)).collect();
    assert_eq!(by_id.len(), stored.len());
    let mut names = BTreeMap::new();
    for item in stored.iter().filter(|item| item["kind"] == "location_renamed") {
        *names.entry(item["fields"]["newName"].as_str().expect("a name").to_owned()).or_insert(0) += 1;
    }
    assert!(names.values().all(|times| *times == 1), "told twice: {names:?}");
    for name in done.iter().flat_map(|done| &done.names) {
        assert!(names.contains_key(name), "{name} was acknowledged and nobody told");
    }
    // Each was told of at most one owner's deed each; all that was acknowledged.
    let members: HashSet<_> = done.iter().flat_map(|done| &done.members).copied().collect();
    let told = join_all(members.iter().map(async |member| (*member, all(*member).await))).await;
    let told: BTreeMap<_, _> = told.into_iter().collect();
    for ((owner, id), done) in ids.iter().zip(&done) {
        for member in &done.members {
            let of = told[member]
                .iter()
                .filter(|item| (&item["kind"], &item["locationId"]) == (&json!("member_added"), &json!(id)));
            assert_eq!(of.count(), 1, "{member} of {id}, which is {owner}'s");
        }
    }
    let mut pushed = 0;
    for saw in listener.drain().await {
        if saw["event"] == "notification" {
            pushed += 1;
            assert_eq!(
                by_id.get(&saw["args"][0]["id"].as_u64()),
                Some(&&saw["args"][0]),
                "pushed, not stored"
            );
        }
    }
    println!("{} stored for one, {pushed} pushed, {} members", stored.len(), members.len());
    assert!(pushed > 20);
    server.stop().await;
    site.drop().await;
}
