//! An honest fleet meets no limit.

use super::*;

/// Phones that send every second, maps with 200 rooms that come back again and again, many people in one house, a
/// map in five tabs, a family that chats, an importer.
#[tokio::test(flavor = "multi_thread")]
async fn an_honest_fleet_meets_no_limit() {
    let _share = machine::half().await;
    const PHONES: u64 = 100;
    const ROOMS: usize = 200;
    let server = locked(Db::Sqlite, &[]).await;
    let mut ids = Vec::new();
    for user in 0..ROOMS as u64 {
        ids.push(Pass::user(100 + user % PHONES).create(&server).await);
    }
    let clients = Clients::start();
    let maps = async {
        for kind in KINDS {
            open_map(&server, &clients, kind, &ids).await;
        }
        // A browser is opened again with all its tabs.
        join_all((0..5).map(|_| open_map(&server, &clients, KINDS[0], &ids))).await;
    };
    let phones = async {
        let mut second = interval(Duration::from_secs(1));
        for _ in 0..4 {
            second.tick().await;
            let moves = (0..PHONES).map(|user| {
                let body = json!({"id": ids[user as usize], "geometry": point(1.5, 1.5)});
                let request = server.http.put(format!("{}/location", server.api)).json(&body);
                Pass::user(100 + user).on(request)
            });
            for answer in flood(moves).await {
                assert_eq!(answer.status(), StatusCode::CREATED);
            }
        }
    };
    tokio::join!(maps, phones, chat(&server, &clients), import(&server));
    let met = Exposition::scrape(&server).await;
    assert_eq!(met.sum("georoom_limited_total"), 0.0, "{met:?}");
    server.stop().await;
}

/// A map of an admin enters all its rooms at once.
async fn open_map(server: &TestServer, clients: &Clients, kind: (&str, &str), ids: &[u64]) {
    let mut map = Pass::admin(1).connect_as(clients, kind, &server.gateway).await;
    let joins: Vec<u64> =
        ids.iter().map(|id| map.emit_for_ack("join_room", json!({"locationId": id}))).collect();
    let (answers, _) = map.acks_seeing(&joins).await;
    for (answer, id) in answers.iter().zip(ids) {
        assert_eq!(*answer, id.to_string(), "{kind:?}");
    }
    map.kill();
}

/// One of a family says twenty things within ten seconds, and each of fifty people in a room greets all others.
async fn chat(server: &TestServer, clients: &Clients) {
    let owner = Pass::user(50);
    let (family, party) = (owner.create(server).await, owner.create(server).await);
    let say = async |client: &mut Client, room: u64, times: usize| {
        let body = json!({"roomName": room, "message": "I am on my way"});
        let said: Vec<_> = (0..times).map(|_| client.emit_for_ack("chat", body.clone())).collect();
        for answer in client.acks_seeing(&said).await.0 {
            assert_eq!(answer["message"], "I am on my way", "{answer}");
        }
    };
    let mut guests = Vec::new();
    for user in 1_000..1_049 {
        owner.grant(server, party, user, "viewer").await;
        let mut guest = Pass::user(user).connect(clients, &server.gateway).await;
        guest.ask("join_room", json!({"locationId": party})).await;
        guests.push(guest);
    }
    let mut mother = owner.connect(clients, &server.gateway).await;
    mother.ask("join_room", json!({"locationId": family})).await;
    mother.ask_seeing("join_room", json!({"locationId": party})).await;
    join_all(guests.iter_mut().map(|guest| say(guest, party, 1))).await;
    say(&mut mother, family, 20).await;
    say(&mut mother, party, 1).await;
}

/// Five hundred members are added, as fast as they can be.
async fn import(server: &TestServer) {
    let owner = Pass::user(60);
    let id = owner.create(server).await;
    for user in 2_000..2_500 {
        owner.grant(server, id, user, "viewer").await;
    }
}
