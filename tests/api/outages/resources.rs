//! Descriptors, slow connections and output that goes nowhere.

use super::*;

on_both_databases!(a_server_out_of_descriptors_goes_on_once_there_are_some);

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
    // A descriptor is lacking also where the server connects to MySQL.
    noise::expect(&[
        "a connection could not be accepted",
        "history could not be removed; trying again",
        "long statements will be slow: TCP_NODELAY cannot be set",
        "notifications could not be removed; trying again",
    ]);
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
    let _share = machine::half().await;
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
