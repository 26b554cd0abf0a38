//! Many readers that stall beside many that read: what they cost, and what the others notice.

use super::*;

/// Those of a crowd that do read.
const LIVE: usize = 200;

fn quantile(sorted: &[Duration], of: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * of) as usize]
}

/// So many updates, twenty a second, which all of these read; returns how old they were, in order.
async fn watch(api: &str, room: u64, live: &mut [(WebSocket, u64)], updates: u64) -> Vec<Duration> {
    let to = live[0].1 + updates;
    let (http, url) = (reqwest::Client::new(), format!("{api}/location"));
    let writer = tokio::spawn(async move {
        let mut ticks = interval(Duration::from_millis(50));
        for turn in 0..updates {
            ticks.tick().await;
            let body = json!({"id": room, "geometry": point(0.5, turn as f64 / 4096.0)});
            let answer = http.put(&url).json(&body).send().await.expect("an answer");
            assert_eq!(answer.status(), StatusCode::CREATED);
        }
    });
    let latencies = join_all(live.iter_mut().map(|(client, last)| follow(client, room, last, to))).await;
    writer.await.expect("a writer");
    let mut all = latencies.concat();
    all.sort_unstable();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_costs_little_and_holds_up_nobody() {
    let _share = machine::half().await;
    let count = setting("GEOROOM_STALLED", 200);
    let seconds = setting("GEOROOM_STALL_SECONDS", 8) as u64;
    // Nobody is to be removed before it reads again.
    let settings =
        [("RUST_LOG", "warn,georoom::server=info"), ("PING_INTERVAL", "300s"), ("PING_TIMEOUT", "300s")];
    let site = Site::new(Db::Sqlite, &settings).await;
    let server = site.start().await;
    let rooms = site.create(3).await;
    let room = rooms[0];
    let mut live = Vec::new();
    for _ in 0..LIVE {
        let mut client = WebSocket::connect(&site.gateway).await;
        client.join(&[room]).await;
        live.push((client, 1));
    }
    let without = watch(&site.api, room, &mut live, 80).await;
    let before = status(&server, "VmRSS");

    let mut stalled = Vec::new();
    for n in 0..count {
        let mut client = WebSocket::connect_to(&site.gateway, "/socket.io/", n % 2 == 0).await;
        client.join(&rooms).await;
        stalled.push(client);
    }
    let others = Load::start(&site.api, &rooms[1..], &[5, 1]);
    let with = watch(&site.api, room, &mut live, 20 * seconds).await;
    others.stop().await;
    let each = status(&server, "VmRSS").saturating_sub(before) as f64 / count as f64;
    let [without, with] = [without, with].map(|all| [0.5, 0.99, 1.0].map(|of| quantile(&all, of)));
    println!("{LIVE} live readers, median/p99/max: {without:?}; with {count} stalled: {with:?}");
    println!("each stalled reader takes {each:.1} KiB of {} KiB", status(&server, "VmRSS"));
    assert!(each < 200.0, "{each:.1} KiB for each stalled reader");
    assert!(with[0] <= 3 * without[0] + Duration::from_millis(200), "{with:?}, {without:?} before");
    assert!(with[1] <= Duration::from_secs(1), "{with:?}");

    // Each of them has it all the same, once it reads.
    let newest = site.heads(&rooms).await;
    let mut most = 0;
    for client in &mut stalled {
        let (mut last, mut past) = (Versions::new(), 0);
        while rooms.iter().any(|room| last.get(room) < Some(&newest[room])) {
            match client.next().await {
                Seen::Position(Position { room, version, .. }) => {
                    assert!(last.insert(room, version) < Some(version));
                    past += usize::from(version < newest[&room]);
                }
                other => panic!("{other:?}"),
            }
        }
        most = most.max(past);
    }
    println!("the stalled ones were sent at most {most} old positions each");
    drop(live);
    drop(stalled);
    server.stop().await;
    site.drop().await;
}
