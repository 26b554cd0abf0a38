//! Readers that stall while they are sent what they missed.

use super::*;

/// Joins with `since` 0 and reads the first of what it missed, which is much.
async fn begin_replay(follower: &mut Follower, room: u64) {
    match &mut follower.reader {
        Reader::WebSocket(client) => {
            client.emit("join_room", &json!({"locationId": room, "since": 0})).await;
        }
        Reader::Polling(client) => {
            client.send(&format!(r#"420["join_room",{{"locationId":{room},"since":0}}]"#)).await;
        }
        Reader::Stock(_) => unreachable!("does not stall on purpose"),
    }
    while follower.last.is_empty() {
        match follower.reader.next().await {
            Seen::Ack(_, ack) => assert_eq!(ack["recovered"], true, "{ack}"),
            Seen::Position(position) => {
                assert_eq!(position.version, 1);
                follower.last.insert(room, 1);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Reads on; what comes must be the next version. `false` at the end.
async fn read_next(follower: &mut Follower, room: u64) -> bool {
    match follower.reader.next().await {
        Seen::Position(position) => {
            let before = follower.last.insert(room, position.version).expect("a version");
            assert_eq!(position.version, before + 1, "{}", follower.name);
            true
        }
        Seen::End => false,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stalls_in_a_replay_is_sent_all_of_it_or_cut_off() {
    let _share = machine::quarter().await;
    let (server, mut log) = Process::serve(Db::MySql, &[SOCKETS]).await;
    // In the second is nobody but who stalls.
    let (room, lonely) = (create_large(&server, 9_000).await, create_large(&server, 9_000).await);
    // All of it and what comes meanwhile is no more than a room keeps.
    for n in 0..95 {
        for id in [room, lonely] {
            server.move_to(id, 0.5, f64::from(n) / 128.0).await;
        }
    }
    let missed = 96;
    let connect = async |name: &str, narrow| {
        let reader = Reader::websocket(&server.gateway, "/socket.io/", narrow, &[]).await;
        Follower::new(name, reader)
    };
    let load = Load::start(&server.api, &[room], &[1]);

    let mut pausing = [connect("pausing", false).await, connect("pausing, full window", true).await];
    let polling = Polling::connect(&server.gateway).await;
    let mut pausing_polls = Follower::new("pausing polls", Reader::Polling(polling));
    let mut slow = connect("slow", true).await;
    let mut stalled = [connect("stalled", false).await, connect("stalled, full window", true).await];

    let paused = pausing.iter_mut().chain([&mut pausing_polls]).map(async |follower| {
        begin_replay(follower, room).await;
        sleep(Duration::from_secs(7)).await;
        let head = load.heads()[&room];
        while follower.last[&room] < head {
            assert!(read_next(follower, room).await, "{} was cut off", follower.name);
        }
    });
    let read_slowly = async {
        begin_replay(&mut slow, room).await;
        while slow.last[&room] < missed {
            sleep(Duration::from_millis(80)).await;
            assert!(read_next(&mut slow, room).await, "cut off while it read");
        }
    };
    let cut_off = async {
        let began = Instant::now();
        for follower in &mut stalled {
            begin_replay(follower, lonely).await;
        }
        for follower in &stalled {
            let Reader::WebSocket(client) = &follower.reader else { unreachable!() };
            let socket = [("socket", &client.id[..6])];
            log.find("a socket stalled inside a replay and has to reconnect", &socket).await;
            let end = log.find("disconnect", &socket).await;
            assert_eq!(
                (&end["reason"], &end["rooms"]),
                (&json!("stalled_in_replay"), &json!(lonely.to_string()))
            );
        }
        println!("who stalled was cut off after {:?}", began.elapsed());
        assert!(began.elapsed() <= Duration::from_secs(12), "{:?}", began.elapsed());
        for follower in &mut stalled {
            while read_next(follower, lonely).await {}
            assert!(follower.last[&lonely] < missed, "{} was sent everything", follower.name);
        }
        // And nothing is left of their room.
        Exposition::until(&server, "georoom_rooms", 1.0).await;
    };
    tokio::join!(join_all(paused), read_slowly, cut_off);
    load.stop().await;
    server.stop().await;
}
