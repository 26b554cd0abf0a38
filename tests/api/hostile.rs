//! Strangers of every kind at once beside an honest fleet: nobody of the fleet loses a connection, an answer or a
//! version, and the process stays small. `make soak` runs it for ten minutes; the numbers are printed.

use std::{
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
    task::JoinHandle,
    time::{interval, interval_at, sleep, timeout},
};

use crate::support::{
    Db, QUIET, TestDatabase, TestServer,
    exposition::Exposition,
    machine, noise, point,
    process::Process,
    tokens::{KEY, Pass, token},
    websocket::{PONG, Seen, WebSocket, frame},
};

const ON: (&str, &str) = ("RATE_LIMITS", "on");
/// How they are told whom to attack.
const STRANGERS: &str = "GEOROOM_STRANGERS";
/// What they say when they have all they need and begin.
const READY: &str = "the strangers are ready";
/// Names of the kinds of attack to make, with commas; all, if it is not set.
const ONLY: &str = "GEOROOM_HOSTILE_ONLY";
/// Honest users, each with a phone that moves its location every second and a map that follows the next one's.
const FLEET: u64 = 100;
const HOSTILE: u64 = 66_666;
/// In the contract, for a position on a healthy server.
const DEADLINE: Duration = Duration::from_secs(5);

fn seconds() -> u64 {
    let given = std::env::var("GEOROOM_HOSTILE_SECONDS").ok();
    given.map_or(8, |given| given.parse().expect("a number of seconds"))
}

/// Tells all attackers to stop.
type Stop = Arc<AtomicBool>;

/// What one part of the fleet saw.
#[derive(Default)]
struct Times {
    puts: Vec<Duration>,
    deliveries: Vec<Duration>,
}

impl Times {
    fn print(&mut self, name: &str) {
        for (what, times) in [("PUT", &mut self.puts), ("delivery", &mut self.deliveries)] {
            times.sort_unstable();
            let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
            println!("{name}, {what}: {} times, p50 {:?}, p99 {:?}", times.len(), at(0.5), at(0.99));
        }
    }
}

/// Moves one location every second; every PUT is answered with 201.
async fn phone(server: &TestServer, user: u64, id: u64, stop: &Stop) -> Vec<Duration> {
    let pass = Pass::user(user);
    let mut times = Vec::new();
    // Spread over the second, as phones are.
    let first =
        tokio::time::Instant::now() + Duration::from_secs(1) * (user as u32 % FLEET as u32) / FLEET as u32;
    let mut second = interval_at(first, Duration::from_secs(1));
    loop {
        // The map waits for one that came after that.
        let is_last = stop.load(Ordering::Relaxed);
        second.tick().await;
        let began = Instant::now();
        let body = json!({"geometry": point(1.5, times.len() as f64 % 80.0 + 0.5)});
        let path = format!("/location/{id}");
        let answer = pass.send(server, Method::PUT, &path, Some(&body)).await;
        assert_eq!(answer.status(), StatusCode::CREATED, "of user {user}");
        times.push(began.elapsed());
        if is_last {
            return times;
        }
    }
}

/// Follows one location: each version once and in order, on one connection.
async fn map(mut socket: WebSocket, id: u64, mut last: u64, stop: Stop) -> Vec<(SystemTime, Duration)> {
    let mut times = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let Ok(seen) = timeout(Duration::from_secs(30), socket.next()).await else { panic!("silence") };
        match seen {
            Seen::Position(position) => {
                assert_eq!((position.room, position.version), (id, last + 1), "each version once");
                last = position.version;
                times.push((position.at, position.at.elapsed().unwrap_or_default()));
            }
            Seen::Relayed(_) => {}
            other => panic!("{other:?}"),
        }
    }
    times
}

fn auth(user: u64) -> String {
    json!({"token": token(user)}).to_string()
}

/// A request whose answer nobody is interested in.
async fn fire(server: &TestServer, pass: &Pass, method: Method, path: &str, body: Option<serde_json::Value>) {
    let _ = timeout(Duration::from_secs(10), pass.send(server, method, path, body.as_ref())).await;
}

fn large(shift: u64) -> serde_json::Value {
    let position =
        |n: u32| json!([f64::from(n) * 1.1e-4 + 0.123_456_789, (shift % 80) as f64 + 0.987_654_321]);
    json!({"type": "LineString", "coordinates": (0..21_000).map(position).collect::<Vec<_>>()})
}

/// Sockets of one user that join rooms, read nothing, forge pongs and speak all at once.
async fn forge(gateway: &str, rooms: &[u64; 2], sockets: usize) {
    let mut said = [&[][..], &[0; 8]].map(|payload| frame(PONG, true, payload)).concat();
    for event in [
        format!(r#"42["chat",{{"roomName":{},"message":"x"}}]"#, rooms[0]),
        format!(r#"42["join_room",{{"locationId":{}}}]"#, rooms[1]),
        format!(r#"42["presence",{{"locationId":{}}}]"#, rooms[1]),
    ] {
        said.extend(frame(1, true, event.as_bytes()));
    }
    let mut all = Vec::new();
    let mut ticks = interval(Duration::from_millis(100));
    loop {
        for _ in 0..20.min(sockets - all.len()) {
            let (gateway, rooms) = (gateway.to_owned(), *rooms);
            // One that is refused fails.
            let connected = tokio::spawn(async move {
                let mut socket =
                    WebSocket::connect_with(&gateway, "/socket.io/", false, &auth(HOSTILE)).await;
                for room in rooms {
                    socket.emit("join_room", &json!({"locationId": room})).await;
                }
                socket
            });
            all.extend(connected.await);
        }
        ticks.tick().await;
        let mut alive = Vec::new();
        for mut socket in all {
            if socket.try_raw(&said).await.is_ok() {
                alive.push(socket);
            }
        }
        all = alive;
    }
}

/// A connection that sends the beginning of something.
async fn begin(addr: std::net::SocketAddr, text: &str, more: usize) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(addr).await.ok()?;
    stream.write_all(text.as_bytes()).await.ok()?;
    let _ = timeout(Duration::from_secs(1), stream.write_all(&vec![b'x'; more])).await;
    Some(stream)
}

/// The kinds of attack, each with how often it is made at the same time.
const KINDS: [(&str, usize); 10] = [
    ("sockets", 1),
    ("moves", 8),
    ("large moves", 1),
    ("members", 1),
    ("searches", 1),
    ("lists", 1),
    ("bodies", 1),
    ("handshakes", 1),
    ("chats", 1),
    ("refusals", 1),
];

/// Is this kind of attack to be made? All are, unless some are named.
fn is_made(kind: &str) -> bool {
    let only = std::env::var(ONLY).unwrap_or_default();
    only.is_empty() || only.split(',').any(|name| name == kind)
}

/// Where strangers act.
#[derive(Clone, Copy)]
struct Places {
    own: u64,
    /// Their own, too, with a Feature of 0.6 MB.
    big: u64,
    /// Of the fleet; they may see it.
    shared: u64,
}

impl Places {
    async fn create(server: &TestServer, shared: u64) -> Self {
        let hostile = Pass::user(HOSTILE);
        let own = hostile.create(server).await;
        let mut big = 0;
        for turn in 0..60 {
            let body = json!({"geometry": large(turn)});
            let made = hostile.must(server, Method::POST, "/location", Some(body)).await;
            big = made["data"]["location"]["id"].as_u64().expect("an id");
        }
        Self { own, big, shared }
    }
}

/// Everything that hurt somebody once, at the same time.
fn attackers(server: &Arc<TestServer>, places: Places) -> Vec<JoinHandle<()>> {
    let mut all = Vec::new();
    for (kind, times) in KINDS.into_iter().filter(|(kind, _)| is_made(kind)) {
        for _ in 0..times {
            let server = server.clone();
            all.push(tokio::spawn(async move {
                for turn in 0.. {
                    // One that fails is followed by the next.
                    let server = server.clone();
                    let _ = tokio::spawn(async move { attack(kind, &server, places, turn).await }).await;
                }
            }));
        }
    }
    all
}

/// One attack of a kind.
async fn attack(kind: &str, server: &TestServer, Places { own, big, shared }: Places, turn: u64) {
    let pass = Pass::user(HOSTILE);
    let (api, gateway) = server.addrs;
    let bearer = token(HOSTILE);
    match kind {
        "sockets" => forge(&server.gateway, &[own, big], 1_000).await,
        "moves" => {
            let body = json!({"geometry": point(turn as f64 % 80.0, 1.5)});
            fire(server, &pass, Method::PUT, &format!("/location/{own}"), Some(body)).await;
        }
        "large moves" => {
            let body = json!({"geometry": large(turn)});
            fire(server, &pass, Method::PUT, &format!("/location/{big}"), Some(body)).await;
        }
        "members" => {
            // Somebody of the fleet, in and out of a list.
            let path = format!("/location/{big}/members/{}", 1 + turn % FLEET);
            fire(server, &pass, Method::PUT, &path, Some(json!({"role": "viewer"}))).await;
            fire(server, &pass, Method::DELETE, &path, None).await;
        }
        "searches" => {
            let path = "/location?near=0,0&radius=21000000&perPage=100";
            fire(server, &pass, Method::GET, path, None).await;
        }
        // That nobody reads.
        "lists" => {
            let head = format!(
                "GET /location?perPage=100 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {bearer}\r\n\r\n"
            );
            let readers = join_all((0..12).map(|_| begin(api, &head, 0))).await;
            sleep(Duration::from_secs(2)).await;
            drop(readers);
        }
        // That do not end.
        "bodies" => {
            let head = format!(
                "PUT /location HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                 Authorization: Bearer {bearer}\r\nContent-Length: 1048575\r\n\r\n"
            );
            let bodies = join_all((0..40).map(|_| begin(api, &head, 900_000))).await;
            let nobody = "POST /socket.io/?EIO=4&transport=polling&sid=AAAAAAAAAAAAAAHs HTTP/1.1\r\n\
                          Host: localhost\r\nContent-Length: 1048575\r\n\r\n";
            let nobodys = join_all((0..40).map(|_| begin(gateway, nobody, 900_000))).await;
            sleep(Duration::from_secs(2)).await;
            drop((bodies, nobodys));
        }
        // That go no further, from another address.
        "handshakes" => {
            let head = "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: localhost\r\n\
                        X-Forwarded-For: 198.51.100.7\r\nConnection: close\r\n\r\n";
            let begun = join_all((0..50).map(|_| begin(gateway, head, 0))).await;
            for mut stream in begun.into_iter().flatten() {
                let _ = timeout(Duration::from_secs(5), stream.read_to_end(&mut Vec::new())).await;
            }
        }
        // Words in a room where somebody of the fleet is.
        "chats" => {
            let chat = format!(r#"42["chat",{{"roomName":{shared},"message":"{}"}}]"#, "x".repeat(100));
            flood(&server.gateway, HOSTILE, shared, &[chat]).await;
        }
        // Questions about rooms of others.
        "refusals" => {
            let packet = |event| format!(r#"42["{event}",{{"locationId":{shared}}}]"#);
            flood(&server.gateway, HOSTILE + 1, shared, &["join_room", "presence"].map(packet)).await;
        }
        _ => unreachable!("{kind}"),
    }
}

/// As many events as a socket takes.
async fn flood(gateway: &str, user: u64, room: u64, events: &[String]) {
    let mut socket = WebSocket::connect_with(gateway, "/socket.io/", false, &auth(user)).await;
    socket.emit("join_room", &json!({"locationId": room})).await;
    let packets: Vec<_> = events.iter().flat_map(|event| frame(1, true, event.as_bytes())).collect();
    let mut ticks = interval(Duration::from_millis(200));
    loop {
        ticks.tick().await;
        if socket.try_raw(&packets.repeat(100 / events.len())).await.is_err() {
            return;
        }
        while let Ok(Some(_)) = timeout(Duration::from_millis(1), socket.text()).await {}
    }
}

/// Everything that hurt somebody once, until killed. In a process of its own with a low priority: what strangers
/// compute at home takes little from the fleet. With the lowest one it would stand still on a busy machine.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by the test of the fleet"]
async fn strangers() {
    let given = std::env::var(STRANGERS).expect("addresses and places");
    let mut given = given.split(' ');
    let addrs = [given.next(), given.next()].map(|addr| addr.expect("two").parse().expect("an address"));
    let [own, big, shared] = [(); 3].map(|()| given.next().expect("three").parse().expect("an id"));
    let (stop, served) = (tokio::sync::oneshot::channel().0, tokio::spawn(async {}));
    let database = TestDatabase::create(Db::Sqlite).await;
    let server = Arc::new(TestServer::at((addrs[0], addrs[1]), database, stop, served));
    let attackers = attackers(&server, Places { own, big, shared });
    println!("{READY}");
    for attack in attackers {
        let _ = attack.await;
    }
}

/// Starts them, and waits until they are there.
async fn start_strangers(server: &TestServer, Places { own, big, shared }: Places) -> Child {
    let (api, gateway) = server.addrs;
    let mut strangers = Command::new("nice")
        .args(["-n", "5"])
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", "hostile::strangers", "--ignored", "--nocapture"])
        .env(STRANGERS, format!("{api} {gateway} {own} {big} {shared}"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("nice");
    let mut said = BufReader::new(strangers.stdout.take().expect("piped")).lines();
    let sockets =
        async || Exposition::scrape(server).await.value(r#"georoom_sockets{transport="websocket"}"#);
    timeout(Duration::from_secs(300), async {
        while !said.next_line().await.expect("text").expect("strangers").ends_with(READY) {}
        while is_made("sockets") && sockets().await < (FLEET + 100) as f64 {
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .expect("strangers");
    strangers
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_fleet_among_hostile_strangers() {
    let _share = machine::most().await;
    let server = Process::serve(Db::MySql, &[KEY, ON, QUIET]).await.0;
    // On a busy machine.
    noise::expect(&["the database did not answer when its connections were closed"]);
    let mut ids = Vec::new();
    for user in 1..=FLEET {
        ids.push(Pass::user(user).create(&server).await);
    }
    // Each follows the location of the next, as its viewer; one of them has somebody hostile for a viewer, too.
    for (at, id) in ids.iter().enumerate() {
        let owner = Pass::user(at as u64 + 1);
        owner.grant(&server, *id, (at as u64 + FLEET - 1) % FLEET + 1, "viewer").await;
    }
    Pass::user(1).grant(&server, ids[0], HOSTILE, "viewer").await;
    let places = Places::create(&server, ids[0]).await;
    let live: Stop = Arc::default();
    let mut maps = Vec::new();
    for (at, id) in ids.iter().enumerate() {
        let user = (at as u64 + FLEET - 1) % FLEET + 1;
        let mut socket = WebSocket::connect_with(&server.gateway, "/socket.io/", false, &auth(user)).await;
        socket.join(&[*id]).await;
        maps.push(tokio::spawn(map(socket, *id, 1, live.clone())));
    }
    let run = async |stop: &Stop| {
        join_all(ids.iter().zip(1..).map(|(id, user)| phone(&server, user, *id, stop))).await
    };
    let during = async |time: Duration| {
        let stop: Stop = Arc::default();
        let end = async {
            sleep(time).await;
            stop.store(true, Ordering::Relaxed);
        };
        let (puts, ()) = tokio::join!(run(&stop), end);
        puts.concat()
    };
    let memory = async || {
        Exposition::scrape(&server).await.value("process_resident_memory_bytes") as u64 / (1024 * 1024)
    };
    let puts_alone = during(Duration::from_secs(seconds().min(60))).await;
    let (before, began) = (memory().await, SystemTime::now());
    let started: Stop = Arc::default();
    let start = async {
        let strangers = start_strangers(&server, places).await;
        started.store(true, Ordering::Relaxed);
        strangers
    };
    let (mut strangers, _) = tokio::join!(start, run(&started));
    let attacked_from = SystemTime::now();
    let beside = during(Duration::from_secs(seconds())).await;
    let (most, attacked_to) = (memory().await, SystemTime::now());
    let attacked = attacked_from.elapsed().expect("a clock");
    strangers.kill().await.expect("still there");
    // Everybody is still there, and has the last version.
    live.store(true, Ordering::Relaxed);
    during(Duration::from_secs(1)).await;
    let mut deliveries = Vec::new();
    for map in maps {
        deliveries.extend(map.await.expect("a map that missed nothing and lost no connection"));
    }
    let delivered = |from: SystemTime, to: SystemTime| {
        let then = deliveries.iter().filter(|(at, _)| (from..to).contains(at));
        Vec::from_iter(then.map(|(_, time)| *time))
    };
    let mut alone = Times { puts: puts_alone, deliveries: delivered(SystemTime::UNIX_EPOCH, began) };
    let mut beside = Times { puts: beside, deliveries: delivered(attacked_from, attacked_to) };
    alone.print("alone");
    beside.print("beside strangers");
    println!("{attacked:?} of attacks; resident: {before} MiB before, {most} MiB at their end");
    let late = deliveries.iter().filter(|(_, time)| *time > DEADLINE).count();
    assert_eq!(late, 0, "later than {DEADLINE:?}");
    assert!(most < before + 512, "{before} MiB before, {most} MiB with them");
    server.stop().await;
}
