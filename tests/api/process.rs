//! The process: settings, errors at start, `migrate`, signals, and what is logged.

use std::time::Duration;

use georoom::config::{RESERVED, SETTINGS};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::{
    on_both_databases,
    support::{
        Db, TestDatabase,
        clients::Clients,
        noise::{self, IN_FLIGHT},
        point,
        polling::Polling,
        process::{Process, command, run, signal},
        proxy::{End, Proxy},
    },
};

on_both_databases!(a_signal_loses_nothing_and_tells_the_sockets, migrate_may_run_twice_and_beside_a_server);

fn names() -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().map(|setting| setting.name).chain(RESERVED)
}

#[tokio::test]
async fn help_lists_every_setting_and_shows_no_value() {
    let secret = ("DATABASE_URL", "mysql://u:hunter2@127.0.0.1/x");
    let help = run(&[secret, ("JWT_SECRET", "hunter2")], &["--help"]).await;
    assert_eq!(help.code, Some(0));
    for name in names() {
        assert!(help.stdout.contains(name), "{name}");
    }
    assert!(!help.stdout.contains("hunter2"), "{}", help.stdout);
    assert!(help.stdout.contains("127.0.0.1:3030"), "defaults are shown");
    assert!(help.stdout.contains("migrate"), "{}", help.stdout);
}

#[tokio::test]
async fn a_bad_setting_stops_the_start_with_one_line_that_names_it() {
    let bad = [
        ("DATABASE_URL", "postgres://localhost/x"),
        ("DATABASE_URL", "sqlite::memory:"),
        ("DATABASE_URL", "sqlite:///dev/null/x.db?mode=rwc"),
        ("DATABASE_URL", "mysql://root@db.example"),
        ("DATABASE_URL", "mysql://root:1#2@db.example/georoom"),
        ("DATABASE_CONNECTIONS", "1"),
        ("DATABASE_CONNECTIONS", "many"),
        ("DATABASE_URL_FILE", "/nowhere/url"),
        ("API_ADDR", "localhost"),
        ("API_ADDR", "127.0.0.1:70000"),
        ("GATEWAY_ADDR", "3030"),
        ("GATEWAY_ADDR", "127.0.0.1:3000"),
        ("OPEN_MODE", "yes"),
        ("CORS_ORIGINS", "map.example.org"),
        ("CORS_ORIGINS", "https://map.example.org/path"),
        ("CORS_ORIGINS", "https://a.example,*"),
        ("TRUSTED_PROXIES", "10.0.0.0/33"),
        ("PING_INTERVAL", "25"),
        ("PING_TIMEOUT", "0s"),
        ("RATE_LIMITS", "yes"),
        ("LIMIT_USER_REQUESTS", "0"),
        ("LIMIT_SOCKETS", "many"),
        ("MAX_MESSAGE_BYTES", "1000"),
        ("BODY_TIMEOUT", "0s"),
        ("LOG_FORMAT", "xml"),
        ("RUST_LOG", "georoom=loud"),
        ("JWT_SECRET", "0123456789abcdef0123456789abcde"),
        ("JWT_SECRET_FILE", "/nowhere/jwt"),
        ("JWT_PUBLIC_KEY_FILE", "/nowhere/jwt.pem"),
        ("REDIS_URL", "redis://127.0.0.1"),
        ("ADMIN_UI_USERNAME", "admin"),
        ("ADMIN_UI_PASSWORD_HASH", "$2b$10$x"),
        ("ADMIN_UI_MODE", "production"),
        ("ADMIN_UI_READONLY", "true"),
    ];
    let folder = TestDatabase::create(Db::Sqlite).await;
    for (name, value) in bad {
        // Free ports, except where the clash of the two is what is wrong.
        let api = if value == "127.0.0.1:3000" { value } else { "127.0.0.1:0" };
        let mut settings =
            vec![("DATABASE_URL", folder.url.as_str()), ("API_ADDR", api), ("GATEWAY_ADDR", "127.0.0.1:0")];
        settings.retain(|(other, _)| !name.starts_with(other));
        let ended = run(&[settings, vec![(name, value)]].concat(), &[]).await;
        let named = name.trim_end_matches("_FILE");
        assert_eq!(ended.code, Some(1), "{name}={value}: {ended:?}");
        assert!(ended.stderr.starts_with(&format!("georoom: {named}")), "{name}={value}: {}", ended.stderr);
        assert_eq!(ended.stderr.trim_end().lines().count(), 1, "{name}={value}: {}", ended.stderr);
    }
    let ended = run(&[], &["--no-such-flag"]).await;
    assert_eq!(ended.code, Some(2));
}

/// Each of these says which file or host it is about, and what helps.
#[tokio::test]
async fn a_database_that_cannot_be_used_is_named_with_a_remedy() {
    let database = TestDatabase::create(Db::Sqlite).await;
    let file = database.url.trim_start_matches("sqlite://").split('?').next().expect("a file").to_owned();
    let folder = std::path::Path::new(&file).parent().expect("a folder");
    std::fs::create_dir_all(folder).expect("a folder");
    let text = folder.join("text");
    std::fs::write(&text, "this is a file of text, and longer than the head of a database: ".repeat(4))
        .unwrap();
    let text = text.to_str().expect("UTF-8").to_owned();
    let (no_mode, no_database) = (format!("sqlite://{file}"), format!("sqlite://{text}"));
    let there = TestDatabase::create(Db::MySql).await;
    let (host, absent) =
        (&there.url[..there.url.rfind('/').expect("a path")], format!("{}_absent", there.name));
    let unknown = format!("{host}/{absent}");
    let denied = there.url.replacen("root@", "nobody:hunter2@", 1);
    let address = host.rsplit('@').next().expect("an address").trim_start_matches("mysql://");
    for (url, place, remedy) in [
        (&no_mode, &*file, "mode=rwc"),
        (&no_database, &*text, "no SQLite database"),
        (&unknown, &*absent, "CREATE DATABASE"),
        (&denied, address, "%40"),
    ] {
        let settings =
            [("API_ADDR", "127.0.0.1:0"), ("GATEWAY_ADDR", "127.0.0.1:0"), ("DATABASE_URL", &**url)];
        for args in [&[][..], &["migrate"]] {
            let ended = run(&settings, args).await;
            assert_eq!(ended.code, Some(1), "{url} {args:?}: {ended:?}");
            assert!(ended.stderr.starts_with("georoom: DATABASE_URL: "), "{url}: {}", ended.stderr);
            assert_eq!(ended.stderr.trim_end().lines().count(), 1, "{url}: {}", ended.stderr);
            for words in [place, remedy] {
                assert!(ended.stderr.contains(words), "{url}: {words}: {}", ended.stderr);
            }
            assert!(!format!("{}{}", ended.stderr, ended.stdout).contains("hunter2"), "{ended:?}");
        }
    }
    database.drop().await;
    there.drop().await;
}

#[tokio::test]
async fn without_authentication_only_loopback_is_served_unless_asked_for() {
    for (name, addr) in [("API_ADDR", "0.0.0.0:0"), ("GATEWAY_ADDR", "[::]:0")] {
        let ended = run(&[(name, addr)], &[]).await;
        assert_eq!(ended.code, Some(1));
        assert!(ended.stderr.starts_with("georoom: OPEN_MODE"), "{}", ended.stderr);
    }
    let database = TestDatabase::create(Db::Sqlite).await;
    let settings =
        [("DATABASE_URL", database.url.as_str()), ("API_ADDR", "0.0.0.0:0"), ("OPEN_MODE", "true")];
    let mut open = Process::start(&settings).await;
    let warning = open
        .log
        .find("open mode: no authentication; everyone who reaches these ports may do everything", &[]);
    assert_eq!(warning.await["level"], "WARN");
    open.signal("TERM").await;
    assert_eq!(open.ended().await, Some(0));
    database.drop().await;
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let ended = run(&[("GATEWAY_ADDR", &addr), ("API_ADDR", "127.0.0.1:0")], &[]).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.starts_with(&format!("georoom: GATEWAY_ADDR: {addr}")), "{}", ended.stderr);
}

#[tokio::test]
async fn an_empty_setting_is_unset_and_a_flag_goes_before_the_environment() {
    let database = TestDatabase::create(Db::Sqlite).await;
    let empty: Vec<_> = names().map(|name| (name, "")).collect();
    let settings = [empty, vec![("DATABASE_URL", "sqlite:///dev/null/x"), ("LOG_FORMAT", "xml")]].concat();
    let args = ["migrate", "--database-url", &database.url, "--log-format", "text"];
    let ended = run(&settings, &args).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    database.drop().await;
}

#[tokio::test]
async fn a_password_comes_by_environment_or_file_and_is_never_shown() {
    let url = "mysql://root:hunter2@127.0.0.1:1/x";
    let by_flag = run(&[], &["migrate", "--database-url", url]).await;
    let by_environment = run(&[("DATABASE_URL", url), ("RUST_LOG", "trace")], &["migrate"]).await;
    let file = std::env::temp_dir().join(format!("georoom_url_{}", std::process::id()));
    std::fs::write(&file, format!("{url}\n")).unwrap();
    let by_file = run(&[("DATABASE_URL_FILE", file.to_str().unwrap())], &["migrate"]).await;
    let bad = run(&[("DATABASE_URL", "mysql://root:hunter2@127.0.0.1:port/x")], &["migrate"]).await;
    std::fs::remove_file(file).unwrap();
    for ended in [&by_flag, &by_environment, &by_file, &bad] {
        assert_eq!(ended.code, Some(1));
        assert!(ended.stderr.starts_with("georoom: DATABASE_URL"), "{}", ended.stderr);
        assert!(!format!("{}{}", ended.stderr, ended.stdout).contains("hunter2"), "{ended:?}");
    }
    assert!(by_flag.stderr.contains("environment"), "{}", by_flag.stderr);
}

async fn migrate_may_run_twice_and_beside_a_server(db: Db) {
    let database = TestDatabase::create(db).await;
    let settings = [("DATABASE_URL", database.url.as_str())];
    for _ in 0..2 {
        let ended = run(&settings, &["migrate"]).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
    let server = Process::start(&settings).await;
    assert_eq!(run(&settings, &["migrate"]).await.code, Some(0));
    server.signal("INT").await;
    assert_eq!(server.ended().await, Some(0));
    database.drop().await;
}

async fn a_signal_loses_nothing_and_tells_the_sockets(db: Db) {
    let database = TestDatabase::create(db).await;
    let settings = [("DATABASE_URL", database.url.as_str()), ("RUST_LOG", "warn,georoom::server=info")];
    let server = Process::start(&settings).await;
    let http = reqwest::Client::new();
    let location = format!("{}/location", server.api);
    let post = http.post(&location).json(&json!({"geometry": point(0.0, 0.0)})).send().await.unwrap();
    let id = post.json::<Value>().await.unwrap()["data"]["location"]["id"].as_u64().unwrap();

    let clients = Clients::start();
    let mut reader = clients.connect(&server.gateway).await;
    reader.join(id).await;
    let mut poller = clients.open("4", &server.gateway, json!({"transports": ["polling"]}));
    poller.connected().await;

    // Writers go on until the server no longer takes them.
    let writers: Vec<_> = (0..8)
        .map(|n| {
            let (http, location) = (http.clone(), location.clone());
            tokio::spawn(async move {
                let mut acknowledged = 0;
                loop {
                    let body = json!({"id": id, "geometry": point(f64::from(n), 1.0)});
                    match http.put(&location).json(&body).send().await {
                        Ok(answer) if answer.status() == StatusCode::CREATED => {
                            let answer: Value = answer.json().await.expect("a whole answer");
                            let feature = &answer["data"]["updatedLocationResult"];
                            acknowledged = feature["properties"]["version"].as_u64().expect("a version");
                        }
                        Ok(answer) => panic!("{answer:?}"),
                        Err(_) => return acknowledged,
                    }
                }
            })
        })
        .collect();
    let mut seen = 1;
    while seen < 100 {
        seen = reader.event("chat").await["version"].as_u64().unwrap();
    }
    server.signal("TERM").await;
    let mut acknowledged = 0;
    for writer in writers {
        acknowledged = acknowledged.max(writer.await.unwrap());
    }
    // Every acknowledged move was still sent, in order, before the goodbye.
    let goodbye = loop {
        let saw = reader.next().await;
        if saw["kind"] == "disconnect" {
            break saw;
        }
        assert_eq!(saw["args"][0]["version"], seen + 1, "{saw}");
        seen += 1;
    };
    assert!(seen >= acknowledged, "{acknowledged} acknowledged, {seen} seen");
    // Reasons after which the stock client connects again by itself.
    assert_eq!(goodbye["reason"], "transport close");
    assert_eq!(poller.until("disconnect").await["reason"], "transport close");
    assert_eq!(server.ended().await, Some(0));

    let again = Process::start(&settings).await;
    let read = http.get(format!("{}/location/{id}", again.api)).send().await.unwrap();
    let stored: Value = read.json().await.unwrap();
    assert_eq!(stored["properties"]["version"], seen);
    again.signal("TERM").await;
    assert_eq!(again.ended().await, Some(0));
    database.drop().await;
}

#[tokio::test]
async fn each_request_and_each_act_of_a_socket_has_one_line_of_fields() {
    let database = TestDatabase::create(Db::Sqlite).await;
    let mut server = Process::start(&[("DATABASE_URL", &database.url)]).await;
    let http = reqwest::Client::new();
    let url = format!("{}/location?userId=7", server.api);
    http.get(url)
        .header("X-Forwarded-For", "198.51.100.9")
        .header("X-Request-Id", "r1")
        .send()
        .await
        .unwrap();
    let line = server.log.find("request", &[]).await;
    let span = &line["spans"][0];
    assert_eq!(span["method"], "GET");
    assert_eq!(span["path"], "/location", "without the query");
    assert_eq!(span["client"], "198.51.100.9");
    assert_eq!(span["request_id"], "r1");
    assert_eq!(line["status"], 200);
    assert!(line["elapsed_us"].is_u64(), "{line}");

    let post = http.post(format!("{}/location", server.api)).json(&json!({"geometry": point(0.0, 0.0)}));
    post.send().await.unwrap();
    let clients = Clients::start();
    let mut client = clients.open("4", &server.gateway, json!({"transports": ["websocket"]}));
    let id = client.connected().await;
    let mut lines = vec![server.log.find("connect", &[]).await];
    client.join(1).await;
    lines.push(server.log.find("join", &[]).await);
    client.ask("leave_room", json!({"locationId": 1})).await;
    lines.push(server.log.find("leave", &[]).await);
    client.disconnect();
    lines.push(server.log.find("disconnect", &[]).await);
    assert_eq!(lines[0]["transport"], "websocket");
    assert_eq!(lines[1]["room"], "1");
    assert_eq!(lines[3]["reason"], "client_disconnect");
    for line in &lines {
        assert_eq!(line["socket"], lines[0]["socket"], "one name for one socket");
        assert!(!line.to_string().contains(&id), "a socket's id is a key: {line}");
    }
    assert!(id.starts_with(lines[0]["socket"].as_str().unwrap()));
    server.signal("TERM").await;
    assert_eq!(server.ended().await, Some(0));
    database.drop().await;
}

#[tokio::test]
async fn a_client_that_never_finishes_its_request_does_not_hold_up_the_end() {
    noise::expect(&[IN_FLIGHT]);
    let database = TestDatabase::create(Db::Sqlite).await;
    let server = Process::start(&[("DATABASE_URL", &database.url)]).await;
    let addr = server.api.trim_start_matches("http://").to_owned();
    let mut stuck = tokio::net::TcpStream::connect(&addr).await.unwrap();
    let half = "PUT /location HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{";
    tokio::io::AsyncWriteExt::write_all(&mut stuck, half.as_bytes()).await.unwrap();
    let started = std::time::Instant::now();
    server.signal("TERM").await;
    assert_eq!(server.ended().await, Some(0));
    assert!(started.elapsed() < Duration::from_secs(10));
    database.drop().await;
}

/// All that the end waits for, one after the other: a request, a poll, a packet, the database.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_hangs_the_end_comes_in_time() {
    noise::expect(&[IN_FLIGHT]);
    let database = TestDatabase::create(Db::MySql).await;
    let proxy = Proxy::start(&database, None).await;
    let server = Process::start(&[("DATABASE_URL", &proxy.url)]).await;
    let http = reqwest::Client::new();
    let locations = format!("{}/location", server.api);
    let body = json!({"geometry": point(1.0, 2.0)});
    let post = http.post(&locations).json(&body).send().await.unwrap();
    assert_eq!(post.status(), StatusCode::CREATED);
    let put = || http.put(format!("{locations}/1")).json(&body);
    // It is sent something, and does not fetch it.
    let mut polling = Polling::connect(&server.gateway).await;
    polling.ask("join_room", &json!({"locationId": 1})).await;
    polling.chat().await;
    assert_eq!(put().send().await.unwrap().status(), StatusCode::CREATED);

    let packet = format!("POST /socket.io/?EIO=4&transport=polling&sid={}", polling.session);
    let mut stuck = Vec::new();
    for (url, request) in [(&server.api, "PUT /location"), (&server.gateway, &packet)] {
        let mut half = TcpStream::connect(url.trim_start_matches("http://")).await.unwrap();
        let request = format!("{request} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n4");
        half.write_all(request.as_bytes()).await.unwrap();
        stuck.push(half);
    }
    proxy.end_all(End::Silent);
    let unanswered = tokio::spawn(put().send());
    // It has reached the writer.
    let refused = timeout(Duration::from_millis(300), put().send()).await;
    assert!(refused.is_err(), "{refused:?}");
    let started = std::time::Instant::now();
    server.signal("TERM").await;
    assert_eq!(server.ended().await, Some(0));
    // Eight are usual: a room that lacks versions and the database's goodbye take one each.
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    drop(stuck);
    let _ = unanswered.await;
    proxy.cut().await;
    database.drop().await;
}

#[tokio::test]
async fn a_signal_ends_a_start_that_waits_for_its_database() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("mysql://root@{}/x", silent.local_addr().unwrap());
    let settings =
        [("DATABASE_URL", url.as_str()), ("API_ADDR", "127.0.0.1:0"), ("GATEWAY_ADDR", "127.0.0.1:0")];
    let mut child = command(&settings, &[]).spawn().unwrap();
    // It is connecting: from now on it is the database that it waits for.
    let (_connection, _) = silent.accept().await.unwrap();
    signal(&child, "TERM").await;
    let status = tokio::time::timeout(Duration::from_secs(3), child.wait()).await.expect("the end, soon");
    assert_eq!(status.unwrap().code(), Some(0));
}

/// A key of raw bytes must not count as no key: the server would start open.
#[tokio::test]
async fn a_setting_that_is_not_utf_8_stops_the_start() {
    let key = std::os::unix::ffi::OsStringExt::from_vec(b"\xff\xfe0123456789012345678901234567890".to_vec());
    let key: std::ffi::OsString = key;
    let mut command = command(&[], &[]);
    let output = command.env("JWT_SECRET", key).output();
    let output = tokio::time::timeout(Duration::from_secs(10), output).await.expect("the end").unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("georoom: JWT_SECRET"));
}
