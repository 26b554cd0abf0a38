//! Replays amid a stream, of several rooms, and without the database.

use super::*;

on_both_databases!(
    several_rooms_of_one_socket_are_replayed_whole,
    an_update_amid_the_replays_of_other_rooms_is_not_skipped,
    rooms_asked_for_before_reading_on_are_each_acknowledged_and_replayed,
    what_another_server_committed_is_sent_before_what_follows_it,
    coming_back_again_and_again_amid_a_stream_misses_and_repeats_nothing,
    joining_again_with_since_amid_a_stream_leaves_no_hole,
);

/// How far a socket has it in each of several rooms that it has joined at once.
struct Progress {
    ids: Vec<u64>,
    /// The acks to come, in their order.
    acks: VecDeque<u64>,
    since: u64,
    /// The newest version of each room; `None`: not acknowledged yet.
    newest: Vec<Option<u64>>,
    /// Up to where each room promised every version: later ones may be passed over while so much is unread.
    promised: Vec<u64>,
}

impl Progress {
    fn is_at(&self, version: u64) -> bool {
        self.newest.iter().all(|newest| *newest == Some(version))
    }

    /// The next version of a room, or the next ack, and nothing else.
    fn saw(&mut self, saw: &Value) {
        let body = &saw["args"][0];
        let room = body["roomName"].as_str().and_then(|name| name.parse().ok());
        let room = self.ids.iter().position(|id| Some(*id) == room).unwrap_or_else(|| panic!("{saw}"));
        if saw["kind"] == "ack" {
            assert_eq!(saw["ack"].as_u64(), self.acks.pop_front(), "in the order sent: {saw}");
            let version = body["version"].as_u64().unwrap_or_else(|| panic!("{saw}"));
            assert_eq!(*body, recovery(self.ids[room], version, true));
            self.newest[room] = Some(self.since);
            self.promised[room] = version;
        } else {
            let last = self.newest[room].unwrap_or_else(|| panic!("before its ack: {saw}"));
            let next = body["version"].as_u64().unwrap_or_else(|| panic!("{saw}"));
            assert!(next == last + 1 || last >= self.promised[room] && next > last, "{last}, then {saw}");
            self.newest[room] = Some(next);
        }
    }
}

/// Locations with so many versions each.
async fn moved(server: &TestServer, count: usize, versions: u64) -> Vec<u64> {
    let mut ids = Vec::new();
    for _ in 0..count {
        let id = server.create_at(0.5, 0.5).await;
        move_often(server, id, versions as usize - 1).await;
        ids.push(id);
    }
    ids
}

/// Together more than a socket's queue holds.
async fn several_rooms_of_one_socket_are_replayed_whole(db: Db) {
    let (server, _log) = Process::serve(db, &[QUIET]).await;
    let clients = Clients::start();
    let ids = moved(&server, 3, 1_001).await;
    for (generation, transport) in KINDS {
        let mut client = clients.connect_as(generation, transport, &server.gateway).await;
        let join = |id| client.emit_for_ack("join_room", json!({"locationId": id, "since": 1}));
        let acks = ids.iter().map(join).collect();
        let mut progress =
            Progress { ids: ids.clone(), acks, since: 1, newest: vec![None; 3], promised: vec![0; 3] };
        while !progress.is_at(1_001) {
            progress.saw(&client.next().await);
        }
        assert_eq!(client.drain().await, Vec::<Value>::new());
        client.disconnect();
    }
    server.stop().await;
}

/// Whatever else the socket is still being sent: it reads all of it, as fast as it comes.
async fn an_update_amid_the_replays_of_other_rooms_is_not_skipped(db: Db) {
    const MEANWHILE: u64 = 20;
    let (server, _log) = Process::serve(db, &[QUIET]).await;
    let clients = Clients::start();
    let ids = moved(&server, 3, 951).await;
    let mut head = 951;
    for (generation, transport) in KINDS {
        let mut client = clients.connect_as(generation, transport, &server.gateway).await;
        let since = head - 950;
        let join = |id| client.emit_for_ack("join_room", json!({"locationId": id, "since": since}));
        let acks = ids.iter().map(join).collect();
        let mut progress =
            Progress { ids: ids.clone(), acks, since, newest: vec![None; 3], promised: vec![0; 3] };
        let write = async |id: u64| {
            for turn in 0..MEANWHILE {
                server.move_to(id, 0.5, turn as f64).await;
            }
        };
        head += MEANWHILE;
        let read = async {
            while !progress.is_at(head) {
                progress.saw(&client.next().await);
            }
        };
        tokio::join!(read, join_all(ids.iter().map(|id| write(*id))));
        assert_eq!(client.drain().await, Vec::<Value>::new());
        client.disconnect();
    }
    server.stop().await;
}

/// As a client does that is back and asks for all of its rooms before it reads on.
async fn rooms_asked_for_before_reading_on_are_each_acknowledged_and_replayed(db: Db) {
    let (server, mut log) = Process::serve(db, &[]).await;
    let ids = moved(&server, 4, 951).await;
    let mut client = Polling::connect(&server.gateway).await;
    let join = |(n, id)| format!(r#"42{n}["join_room",{}]"#, json!({"locationId": id, "since": 1}));
    client.send_all(&ids.iter().enumerate().map(join).collect::<Vec<_>>()).await;
    // Only now, when everything has been said, it reads.
    for id in &ids {
        log.find("join", &[("room", &id.to_string())]).await;
    }
    let mut progress = Progress {
        ids: ids.clone(),
        acks: (0..4).collect(),
        since: 1,
        newest: vec![None; 4],
        promised: vec![0; 4],
    };
    while !progress.is_at(951) {
        let packet = client.next().await;
        let (kind, ack, arguments) = match packet.split_at(2) {
            ("42", event) => ("event", None, event.replacen(r#""chat","#, "", 1)),
            ("43", ack) => ("ack", ack[..1].parse::<u64>().ok(), ack[1..].to_owned()),
            _ => panic!("{packet}"),
        };
        let arguments: Value = serde_json::from_str(&arguments).expect(&packet);
        progress.saw(&json!({"kind": kind, "ack": ack, "args": arguments}));
    }
    server.stop().await;
}

/// Servers that share a database do not hear of each other's updates, but they know what they have not
/// heard of as soon as something follows it.
async fn what_another_server_committed_is_sent_before_what_follows_it(db: Db) {
    let (server, _log) = Process::serve(db, &[QUIET]).await;
    let other = Process::start(&[("DATABASE_URL", &server.database.url), QUIET]).await;
    let clients = Clients::start();
    let id = server.create_at(0.5, 0.5).await;
    let mut all = vec![server.get(&format!("/location/{id}")).await.1];
    let mut member = clients.connect(&server.gateway).await;
    let mut returning = clients.connect(&server.gateway).await;
    member.join(id).await;
    let move_by = async |api: &str, version: usize| {
        let geometry = point(0.5, version as f64 / 100.0 + 0.005);
        server.update(api, &json!({"id": id, "geometry": geometry})).await
    };
    for round in [1, 3, 40, 100] {
        let seen = all.len() as u64;
        for _ in 0..round {
            all.push(move_by(&other.api, all.len()).await);
        }
        all.push(move_by(&server.api, all.len()).await);
        for feature in &all[seen as usize..] {
            assert_eq!(member.event("chat").await, chat(feature));
        }
        assert_eq!(member.drain().await, Vec::<Value>::new());

        // Whoever has an answer of the other one has more than the room.
        all.push(move_by(&other.api, all.len()).await);
        assert_replayed(&mut returning, id, all.len() as u64, &[]).await;
        assert_eq!(member.event("chat").await, chat(&all[all.len() - 1]));
        assert_replayed(&mut returning, id, seen, &all[seen as usize..]).await;
        returning.leave(id).await;
    }
    other.signal("TERM").await;
    assert_eq!(other.ended().await, Some(0));
    server.stop().await;
}

/// Each reads a little, goes or falls over, and comes back with what it has seen.
async fn coming_back_again_and_again_amid_a_stream_misses_and_repeats_nothing(db: Db) {
    let (server, _log) = Process::serve(db, &[("HISTORY_VERSIONS", "100000"), QUIET]).await;
    let clients = Clients::start();
    let id = server.create_at(0.5, 0.5).await;
    let seen: Vec<_> = (0..12).map(|_| AtomicU64::new(0)).collect();
    let come_and_go = async |n: usize| {
        let (generation, transport) = KINDS[n % KINDS.len()];
        let mut random = Random(n as u64);
        let mut last = 0;
        for round in 0..12 {
            let mut client = clients.connect_as(generation, transport, &server.gateway).await;
            let ack = rejoin(&mut client, id, last).await;
            assert_eq!(ack["recovered"], true, "{ack}");
            let read = 1 + random.below(40) as u64;
            client.follow(id, last, last + read).await;
            last += read;
            seen[n].store(last, Ordering::Relaxed);
            if round % 2 == 0 { client.kill() } else { client.disconnect() }
        }
    };
    let (_, head) = amid_a_stream(&server, id, &seen, join_all((0..seen.len()).map(come_and_go))).await;
    for (n, seen) in seen.into_iter().enumerate() {
        let (generation, transport) = KINDS[n % KINDS.len()];
        let mut client = clients.connect_as(generation, transport, &server.gateway).await;
        let last = seen.into_inner();
        assert_eq!(rejoin(&mut client, id, last).await, recovery(id, head, true));
        client.follow(id, last, head).await;
        assert_eq!(client.drain().await, Vec::<Value>::new());
    }
    server.stop().await;
}

async fn joining_again_with_since_amid_a_stream_leaves_no_hole(db: Db) {
    let (server, _log) = Process::serve(db, &[("HISTORY_VERSIONS", "100000"), QUIET]).await;
    let clients = Clients::start();
    let id = server.create_at(0.5, 0.5).await;
    let seen: Vec<_> = KINDS.iter().map(|_| AtomicU64::new(0)).collect();
    let mut members: Vec<(Client, u64)> = Vec::new();
    for (generation, transport) in KINDS {
        let mut client = clients.connect_as(generation, transport, &server.gateway).await;
        assert_eq!(client.join(id).await["version"], 1);
        members.push((client, 1));
    }
    let step_back = async |n: usize, (client, last): &mut (Client, u64)| {
        let mut random = Random(n as u64);
        for _ in 0..20 {
            let since = last.saturating_sub(random.below(30) as u64);
            let ack = client.emit_for_ack("join_room", json!({"locationId": id, "since": since}));
            // Until then it goes on as before.
            let version = loop {
                let saw = client.next().await;
                if saw["kind"] == "ack" {
                    assert_eq!((&saw["ack"], &saw["args"][0]["recovered"]), (&json!(ack), &json!(true)));
                    break saw["args"][0]["version"].as_u64().expect("a version");
                }
                *last += 1;
                assert_eq!(saw["args"][0]["version"], *last, "{saw}");
            };
            assert!(version >= *last, "{version} after {last}");
            // Everything again from there on, and a little of what follows.
            *last = version + random.below(5) as u64;
            client.follow(id, since, *last).await;
            seen[n].store(*last, Ordering::Relaxed);
        }
        // Done, and holds up nobody.
        seen[n].store(u64::MAX / 2, Ordering::Relaxed);
    };
    let act = join_all(members.iter_mut().enumerate().map(|(n, member)| step_back(n, member)));
    let (_, head) = amid_a_stream(&server, id, &seen, act).await;
    for (mut client, last) in members {
        client.follow(id, last, head).await;
        assert_eq!(client.drain().await, Vec::<Value>::new());
    }
    server.stop().await;
}

/// A live room needs the database only for what was missed.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_database_live_rooms_can_be_joined_and_what_was_missed_is_had_later() {
    let database = TestDatabase::create(Db::MySql).await;
    let proxy = Proxy::start(&database, None).await;
    let settings = [("DATABASE_URL", proxy.url.as_str()), QUIET];
    let (server, _log) = Process::serve_on(database, &settings).await;
    let clients = Clients::start();
    let (id, cold) = (server.create_at(0.5, 0.5).await, server.create_at(0.5, 0.5).await);
    let features = moves(&server, id, 5).await;
    let mut resident = clients.connect(&server.gateway).await;
    resident.join(id).await;
    let mut client = clients.connect(&server.gateway).await;

    let addr = proxy.cut().await;
    assert_replayed(&mut client, id, 6, &[]).await;
    assert_not_recovered(&mut client, id, 7, &features[4]).await;
    client.leave(id).await;
    assert_eq!(client.join(id).await, chat(&features[4]));
    client.leave(id).await;
    // What was missed is in the database: the live room goes on with what it knows, and says so.
    assert_not_recovered(&mut client, id, 2, &features[4]).await;
    assert_eq!(rejoin(&mut client, cold, 0).await["code"], "storage_unavailable");
    let said = json!({"roomName": cold.to_string(), "message": "here"});
    assert_eq!(client.ask("chat", said).await["code"], "not_in_room", "refused is not entered");

    let (read, unread) = (format!("/location/{id}"), format!("/location/{cold}"));
    assert_eq!(server.get(&read).await, (StatusCode::OK, features[4].clone()));
    let seen = server.http.get(format!("{}{read}", server.api)).header("if-none-match", "\"6\"").send();
    assert_eq!(seen.await.unwrap().status(), StatusCode::NOT_MODIFIED);
    assert_eq!(server.get(&unread).await.1["code"], "storage_unavailable");

    let proxy = Proxy::start(&server.database, Some(addr)).await;
    while rejoin(&mut client, cold, 0).await["code"] == "storage_unavailable" {}
    assert_eq!(client.event("chat").await["roomName"], cold.to_string());
    assert_replayed(&mut client, id, 2, &features[1..]).await;
    assert_eq!(resident.drain().await, Vec::<Value>::new());
    server.stop().await;
    proxy.cut().await;
}
