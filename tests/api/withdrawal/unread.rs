//! What is on its way to sockets that do not read when their right ends.

use super::*;

on_one_database!(
    who_does_not_read_is_handed_nothing_of_a_room_that_is_withdrawn,
    who_has_left_a_room_is_handed_nothing_of_it_either,
);

/// What somebody who reads badly read of a room.
#[derive(Default)]
struct Read {
    /// Bytes of bodies, each with when it was read.
    bytes: Vec<(Instant, usize)>,
    /// The youngest.
    committed: Option<SystemTime>,
    turn: Option<u64>,
    closed: bool,
}

impl Read {
    /// Reads until the connection ends, the room is closed, or nothing comes for a while.
    async fn on(&mut self, client: &mut WebSocket, pause: Duration, mut go_on: impl FnMut() -> bool) {
        while go_on() {
            let Ok(seen) = timeout(Duration::from_secs(3), client.next()).await else { return };
            match seen {
                Seen::Position(position) => {
                    assert!(!self.closed, "{position:?} after the room was closed");
                    self.bytes.push((Instant::now(), position.bytes));
                    self.committed = self.committed.max(Some(position.at));
                }
                Seen::Relayed(chat) => {
                    assert!(!self.closed, "{chat} after the room was closed");
                    self.bytes.push((Instant::now(), chat.to_string().len()));
                    self.turn = self.turn.max(chat["message"]["turn"].as_u64());
                }
                Seen::RoomClosed(_) => self.closed = true,
                Seen::End => return,
                other => panic!("{other:?}"),
            }
            // As slow as somebody on a bad road.
            sleep(pause).await;
        }
    }

    fn after(&self, time: Instant) -> usize {
        self.bytes.iter().filter(|(at, _)| *at > time).map(|(_, bytes)| bytes).sum()
    }
}

/// The right was given a moment before, by who takes it away: what they have asked for is withdrawn all the same.
async fn who_has_left_a_room_is_handed_nothing_of_it_either(db: Db) {
    let gateway_too = ("RUST_LOG", "warn,georoom::server=info,georoom::gateway=info");
    let (server, mut log) = Process::serve(db, &[KEY, gateway_too]).await;
    let id = create(&server, 2_000).await;
    admit(&server, id, MEMBER).await;
    let auth = Pass::user(MEMBER).auth().to_string();
    let mut client = WebSocket::connect_with(&server.gateway, "/socket.io/", true, &auth).await;
    client.join(&[id]).await;
    for _ in 0..40 {
        moved(&server, id).await;
    }
    client.emit("leave_room", &json!({"locationId": id})).await;
    log.find("leave", &[("room", &id.to_string())]).await;
    delete(&server, &format!("/location/{id}/members/{MEMBER}")).await;
    log.find("disconnect", &[("reason", "withdrawn")]).await;
    server.stop().await;
}

/// More is sent than any of them reads: positions of two kilobytes and what somebody says.
async fn who_does_not_read_is_handed_nothing_of_a_room_that_is_withdrawn(db: Db) {
    /// Packets, frames and what this end has read without looking at it.
    const ROUND: usize = 8 * 1024;
    let _share = machine::quarter().await;
    let (server, _log) = Process::serve(db, &[KEY, QUIET]).await;
    let id = create(&server, 2_000).await;
    let others = create(&server, 0).await;
    for id in [id, others] {
        admit(&server, id, MEMBER).await;
    }
    let (gateway, member) = (&server.gateway, &Pass::user(MEMBER));
    let auth = member.auth().to_string();
    let mut stalled = Vec::new();
    for narrow in [true, false, true, false] {
        let mut client = WebSocket::connect_with(gateway, "/socket.io/", narrow, &auth).await;
        client.join(&[id]).await;
        stalled.push(client);
    }
    let mut slow = Vec::new();
    for _ in 0..4 {
        let mut client = WebSocket::connect_with(gateway, "/socket.io/", true, &auth).await;
        client.join(&[id]).await;
        slow.push(client);
    }
    let mut poller = Polling::connect_with(gateway, "/socket.io/", &auth).await;
    poller.ask("join_room", &json!({"locationId": id})).await;
    poller.chat().await;
    let mut healthy = vec![Reader::websocket(gateway, member).await, Reader::polling(gateway, member).await];
    for reader in &mut healthy {
        reader.join(others).await;
        reader.join(id).await;
    }
    let over = watch::Sender::new(None);
    let healthy: Vec<_> = healthy
        .into_iter()
        .map(|mut reader| {
            let over = over.subscribe();
            tokio::spawn(async move {
                let body = loop {
                    match reader.next().await {
                        Seen::RoomClosed(body) => break body,
                        Seen::Position(_) | Seen::Relayed(_) => {}
                        other => panic!("{other:?}"),
                    }
                };
                let at = Instant::now();
                (body, at, reader.linger(over).await)
            })
        })
        .collect();

    // The owner says something ten times a second.
    let turn = Arc::<AtomicU64>::default();
    let quiet = Arc::<AtomicBool>::default();
    let mut speaker = Reader::websocket(gateway, &Pass::user(OWNER)).await;
    speaker.ask("join_room", json!({"locationId": id})).await;
    let speaking = tokio::spawn({
        let (turn, quiet) = (turn.clone(), quiet.clone());
        async move {
            let mut ticks = interval(Duration::from_millis(100));
            while !quiet.load(Ordering::Relaxed) {
                ticks.tick().await;
                let message = json!({"turn": turn.fetch_add(1, Ordering::SeqCst), "pad": "x".repeat(500)});
                speaker.ask("chat", json!({"roomName": id, "message": message})).await;
            }
        }
    });
    let mut load = Load::start(&server, id, 50);
    let slow: Vec<_> = slow
        .into_iter()
        .map(|mut client| {
            let port = client.port();
            let task = tokio::spawn(async move {
                let mut read = Read::default();
                read.on(&mut client, Duration::from_millis(30), || true).await;
                read
            });
            (port, task)
        })
        .collect();
    // Far more than the window of each.
    load.wrote(150).await;

    let ended = delete(&server, &format!("/location/{id}/members/{MEMBER}")).await;
    let (ended_at, last_turn) = (SystemTime::now(), turn.load(Ordering::SeqCst));
    // A connection that has been ended is no longer in the kernel's table, though there is more to be read.
    let ports = stalled.iter().map(WebSocket::port).chain(slow.iter().map(|(port, _)| *port));
    let ports: Vec<_> = ports.collect();
    let mut queued = on_their_way(&ports);
    sleep_until(ended + WITHDRAWN).await;
    let looked = Instant::now();
    let now = on_their_way(&ports);
    queued.iter_mut().for_each(|(port, bytes)| *bytes = now[port].max(*bytes));
    let (status, body) = poller.poll().await;
    assert!(!body.contains("chat"), "{status}: {body}");
    assert_eq!(status, StatusCode::BAD_REQUEST, "it is to connect again: {body}");

    load.wrote(50).await;
    let mut reads = Vec::new();
    for mut client in stalled {
        let mut read = Read::default();
        read.on(&mut client, Duration::ZERO, || true).await;
        reads.push(("stalled", client.port(), read));
    }
    for (port, read) in slow {
        reads.push(("slow", port, read.await.expect("a reader that saw nothing wrong")));
    }
    for (name, port, read) in reads {
        let (after, queued) = (read.after(looked), queued[&port]);
        println!("{name}: {} messages, {after} bytes after, {queued} queued", read.bytes.len());
        assert!(after <= queued + ROUND, "{name}: {after} bytes where {queued} were on their way");
        assert!(read.committed <= Some(ended_at), "{name}: a position committed after");
        assert!(read.turn < Some(last_turn), "{name}: said after");
    }
    quiet.store(true, Ordering::Relaxed);
    speaking.await.expect("somebody who speaks");
    load.stop().await;
    // Still connected, and in its other room.
    let version = moved(&server, others).await;
    over.send_replace(Some(version));
    for reader in healthy {
        let (body, at, after) = reader.await.expect("a reader that saw nothing wrong");
        assert_eq!(body, json!({"roomName": id.to_string(), "reason": "revoked"}));
        assert!(at <= ended + WITHDRAWN);
        match &after[..] {
            [Seen::Position(position)] => assert_eq!((position.room, position.version), (others, version)),
            seen => panic!("{seen:?}"),
        }
    }
    server.stop().await;
}
