//! Sockets that neither read nor answer, and when their connections are ended.

use super::*;

/// Sockets that will neither read nor answer, in one room, and the names they have in the log.
struct Gone {
    names: Vec<String>,
    /// Of the connections with WebSockets.
    ports: Vec<u16>,
    /// Only to keep their connections.
    _polls: Vec<TcpStream>,
    _sockets: Vec<WebSocket>,
    _clients: Clients,
}

impl Gone {
    async fn start(gateway: &str, room: u64) -> Self {
        let (mut sockets, mut polls, mut names) = (Vec::new(), Vec::new(), Vec::new());
        for n in 0..24 {
            let mut client = WebSocket::connect_to(gateway, "/socket.io/", n < 16).await;
            if n < 20 {
                client.join(&[room]).await;
            }
            names.push(client.id[..6].to_owned());
            sockets.push(client);
        }
        for n in 0..4 {
            let polling = Polling::connect(gateway).await;
            polling.send(&format!(r#"420["join_room",{{"locationId":{room}}}]"#)).await;
            names.push(polling.session[..6].to_owned());
            // A poll whose answer nobody takes, or none at all.
            if n % 2 == 0 {
                let addr = gateway.strip_prefix("http://").expect("a URL");
                let mut poll = TcpStream::connect(addr).await.expect("a connection");
                let query = format!("EIO=4&transport=polling&sid={}", polling.session);
                let request = format!("GET /socket.io/?{query} HTTP/1.1\r\nHost: {addr}\r\n\r\n");
                poll.write_all(request.as_bytes()).await.expect("a connection");
                polls.push(poll);
            }
        }
        let clients = Clients::start();
        let mut ports = Vec::new();
        // How many connections one takes that polls, is its own affair.
        for transport in ["websocket", "polling"] {
            for (version, _) in KINDS.into_iter().filter(|kind| kind.1 == transport) {
                let mut client = clients.open(version, gateway, json!({"transports": [transport]}));
                names.push(client.connected().await[..6].to_owned());
                client.join(room).await;
            }
            if ports.is_empty() {
                let poll = |poll: &TcpStream| poll.local_addr().expect("an address").port();
                let polls: Vec<_> = polls.iter().map(poll).collect();
                ports = not_ended(gateway);
                ports.retain(|port| !polls.contains(port));
                assert!(ports.len() >= sockets.len() + VERSIONS.len(), "{ports:?}");
            }
        }
        clients.signal("STOP").await;
        Self { names, ports, _polls: polls, _sockets: sockets, _clients: clients }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_gone_without_a_word_is_soon_removed() {
    let _share = machine::quarter().await;
    // The first is not to be removed before the last is there.
    let heartbeat = [("PING_INTERVAL", "6s"), ("PING_TIMEOUT", "1s"), SOCKETS];
    let site = Site::new(Db::Sqlite, &heartbeat).await;
    let mut server = site.start().await;
    let room = site.create(1).await[0];
    let http = reqwest::Client::new();
    let pad = json!({"id": room, "properties": {"pad": "x".repeat(9_000)}});
    let large = http.put(format!("{}/location", site.api)).json(&pad).send().await.expect("an answer");
    assert_eq!(large.status(), StatusCode::CREATED);
    let load = Load::start(&site.api, &[room], &[20]);

    let gone = Gone::start(&site.gateway, room).await;
    let stopped = Instant::now();
    // Seven for the heartbeat, one for the write deadline.
    let deadline = stopped + Duration::from_secs(8) + SLACK;
    for name in &gone.names {
        let line = timeout_at(deadline, server.log.find("disconnect", &[("socket", name)])).await;
        line.unwrap_or_else(|_| panic!("{name} of {:?} is still there", gone.names));
    }
    println!("{} sockets were removed after {:?}", gone.names.len(), stopped.elapsed());
    // And nothing is left of their connections, but where only HTTP is spoken.
    loop {
        let left: Vec<_> = not_ended(&site.gateway).into_iter().filter(|p| gone.ports.contains(p)).collect();
        if left.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "{left:?} are left");
        sleep(Duration::from_millis(20)).await;
    }
    load.stop().await;
    server.stop().await;
    drop(gone);
    site.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_does_not_wait_for_who_does_not_read() {
    noise::expect(&[CUT_OFF]);
    let _share = machine::half().await;
    let site = Site::new(Db::Sqlite, &[SOCKETS]).await;
    let server = site.start().await;
    let room = site.create(1).await[0];
    let http = reqwest::Client::new();
    let pad = json!({"id": room, "properties": {"pad": "x".repeat(9_000)}});
    let large = http.put(format!("{}/location", site.api)).json(&pad).send().await.expect("an answer");
    assert_eq!(large.status(), StatusCode::CREATED);
    let gone = Gone::start(&site.gateway, room).await;
    let mut writers = Writers::start(&site.api, &[room], 0..4, Outage::GiveUp, None);
    writers.wrote(60).await;
    let began = Instant::now();
    // Within ten seconds and with exit code 0, as it says there.
    server.stop().await;
    println!("ended after {:?}", began.elapsed());
    writers.ended().await;
    drop(gone);
    site.drop().await;
}

/// Readers with next to no room on their way, and an update that does not fit into it.
async fn overfill(server: &TestServer, count: usize) -> Vec<WebSocket> {
    let room = server.create_at(0.5, 0.5).await;
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = WebSocket::connect_to(&server.gateway, "/socket.io/", true).await;
        client.join(&[room]).await;
        clients.push(client);
    }
    let line: Vec<_> = (0..20_000).map(|n| [0.5, f64::from(n) / 1_048_576.0]).collect();
    let body = json!({"id": room, "geometry": {"type": "LineString", "coordinates": line}});
    server.update(&server.api, &body).await;
    clients
}

/// Its heartbeats go on, so that nothing tells but what it does not read.
async fn is_ended(server: &TestServer, log: &mut Log, client: &mut WebSocket) {
    let began = Instant::now();
    let name = client.id[..6].to_owned();
    let beats = async {
        let mut ticks = interval(Duration::from_millis(100));
        loop {
            ticks.tick().await;
            client.beat().await;
        }
    };
    let socket = [("socket", name.as_str())];
    let end = tokio::select! {
        end = timeout(5 * SLACK, log.find("disconnect", &socket)) => end.expect("the end"),
        () = beats => unreachable!("go on"),
    };
    assert_eq!(end["reason"], "unread");
    println!("ended after {:?}", began.elapsed());
    while connections(&server.gateway) > 0 {
        assert!(began.elapsed() < 6 * SLACK, "its connection is left");
        sleep(Duration::from_millis(20)).await;
    }
}

const SHORT_HEARTBEAT: [(&str, &str); 3] = [("PING_INTERVAL", "300ms"), ("PING_TIMEOUT", "1s"), SOCKETS];

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_no_bytes_is_ended_though_it_is_heard_of() {
    let _share = machine::quarter().await;
    let (server, mut log) = Process::serve(Db::Sqlite, &SHORT_HEARTBEAT).await;
    let mut client = overfill(&server, 1).await.remove(0);
    is_ended(&server, &mut log, &mut client).await;
    server.stop().await;
}

/// The kernel, or a proxy, takes what it is sent.
#[tokio::test(flavor = "multi_thread")]
async fn who_reads_nothing_is_ended_though_it_is_heard_of() {
    let _share = machine::quarter().await;
    let (server, mut log) = Process::serve(Db::Sqlite, &SHORT_HEARTBEAT).await;
    let room = create(&server, 1).await[0];
    let mut client = WebSocket::connect(&server.gateway).await;
    client.join(&[room]).await;
    server.move_to(room, 0.5, 0.25).await;
    is_ended(&server, &mut log, &mut client).await;
    server.stop().await;
}

/// Nor do polls that are not there say that they read.
#[tokio::test(flavor = "multi_thread")]
async fn who_polls_no_more_is_ended_though_it_is_heard_of() {
    let _share = machine::quarter().await;
    let (server, mut log) = Process::serve(Db::Sqlite, &SHORT_HEARTBEAT).await;
    let room = create(&server, 1).await[0];
    let mut polling = Polling::connect(&server.gateway).await;
    polling.ask("join_room", &json!({"locationId": room})).await;
    polling.chat().await;
    server.move_to(room, 0.5, 0.25).await;
    let began = Instant::now();
    let name = polling.session[..6].to_owned();
    let url = format!("{}/socket.io/?EIO=4&transport=polling&sid={}", server.gateway, polling.session);
    let http = reqwest::Client::new();
    let beats = async {
        let mut ticks = interval(Duration::from_millis(100));
        loop {
            ticks.tick().await;
            http.post(&url).body("3").send().await.expect("an answer");
        }
    };
    let socket = [("socket", name.as_str())];
    tokio::select! {
        end = timeout(5 * SLACK, log.find("disconnect", &socket)) => {
            assert_eq!(end.expect("the end")["reason"], "unread");
        }
        () = beats => unreachable!("go on"),
    }
    println!("ended after {:?}", began.elapsed());
    server.stop().await;
}

/// In this process, whose end would cut them too.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_ended_leaves_no_connection_of_who_does_not_read() {
    noise::expect(&[CUT_OFF]);
    let _share = machine::quarter().await;
    let server = TestServer::start(Db::Sqlite).await;
    let clients = overfill(&server, 8).await;
    let (gateway, began) = (server.gateway.clone(), Instant::now());
    let database = server.halt().await;
    println!("ended after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let ended = Instant::now();
    while connections(&gateway) > 0 {
        assert!(ended.elapsed() < SLACK, "{} connections are left", connections(&gateway));
        sleep(Duration::from_millis(20)).await;
    }
    drop(clients);
    database.drop().await;
}
