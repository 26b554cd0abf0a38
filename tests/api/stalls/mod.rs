//! Readers that stop, stall and vanish: each is sent what was on its way and then the newest, it costs the
//! server little, and the others notice nothing.
//!
//! A stock client stalls with its event loop. Where it could not stall on purpose a client by hand does.
//! `GEOROOM_STALLED` says how many of a crowd stall, `GEOROOM_STALL_SECONDS` for how long; `make soak` asks for
//! more than `make test`.

mod crowd;
mod ended;
mod replay;
mod transports;

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, SystemTime},
};

use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::json;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Instant, interval, sleep, sleep_until, timeout, timeout_at},
};

use crate::support::{
    Db, NOWHERE, TestServer,
    clients::{Client, Clients, KINDS, VERSIONS},
    exposition::Exposition,
    followers::Followers,
    kernel::{connections, not_ended},
    machine,
    nginx::Nginx,
    noise::{self, CUT_OFF},
    point,
    polling::Polling,
    process::{Log, Process},
    setting,
    site::Site,
    websocket::{CONTINUATION, PING, PONG, Position, Seen, TEXT, WebSocket, frame},
    writers::{Outage, Writers},
};

/// What of a socket's connection and its end is logged.
const SOCKETS: (&str, &str) = ("RUST_LOG", "warn,georoom::server=info,georoom::gateway=info");

/// What a socket may be sent without having read it, as `docs/protocol.md` has it.
const WINDOW: usize = 64 * 1024;

/// For so long: until confirmation is asked for, and until it is missed.
const PATIENCE: Duration = Duration::from_secs(5);

/// For timers and tasks on a busy machine.
const SLACK: Duration = Duration::from_secs(4);

type Versions = BTreeMap<u64, u64>;

/// Rooms that are updated so many times a second.
struct Load(Vec<Writers>);

impl Load {
    fn start(api: &str, rooms: &[u64], rates: &[u32]) -> Self {
        // More than one writer where one would be too slow.
        let load = rooms.iter().zip(rates).map(|(room, rate)| {
            let writers = rate.div_ceil(10);
            let pace = Duration::from_secs(1) * writers / *rate;
            Writers::start(api, &[*room], 0..writers, Outage::GoOn, Some(pace))
        });
        Self(load.collect())
    }

    /// What was answered so far.
    fn heads(&self) -> Versions {
        self.0.iter().flat_map(Writers::heads).collect()
    }

    async fn stop(self) -> Versions {
        let written = join_all(self.0.into_iter().map(Writers::stop)).await;
        written.iter().flat_map(|written| written.heads()).collect()
    }
}

/// Somebody in rooms.
enum Reader {
    WebSocket(WebSocket),
    Polling(Polling),
    Stock(Client),
}

impl Reader {
    async fn polling(url: &str, path: &str, rooms: &[u64]) -> Self {
        let polling = Polling::connect_to(url, path).await;
        for room in rooms {
            polling.send(&format!(r#"420["join_room",{{"locationId":{room}}}]"#)).await;
        }
        Self::Polling(polling)
    }

    async fn websocket(url: &str, path: &str, narrow: bool, rooms: &[u64]) -> Self {
        let mut client = WebSocket::connect_to(url, path, narrow).await;
        client.join(rooms).await;
        Self::WebSocket(client)
    }

    async fn next(&mut self) -> Seen {
        match self {
            Self::WebSocket(client) => client.next().await,
            Self::Polling(client) => Seen::read(&client.next().await),
            Self::Stock(client) => {
                let mut saw = client.next().await;
                match saw["kind"].as_str() {
                    Some("event") => match Position::read(&saw["args"][0].to_string()) {
                        Some(position) => Seen::Position(position),
                        None => Seen::Relayed(saw["args"][0].take()),
                    },
                    Some("ack") => Seen::Ack(saw["ack"].as_u64().expect("a number"), saw["args"][0].take()),
                    _ => Seen::End,
                }
            }
        }
    }

    /// Asks for an ack without reading.
    async fn ask(&mut self) {
        match self {
            Self::WebSocket(client) => drop(client.emit("leave_room", &json!({"locationId": NOWHERE})).await),
            Self::Polling(client) => {
                client.send(&format!(r#"420["leave_room",{{"locationId":{NOWHERE}}}]"#)).await;
            }
            Self::Stock(client) => drop(client.emit_for_ack("leave_room", json!({"locationId": NOWHERE}))),
        }
    }
}

/// What somebody has seen, and whether it was in order.
struct Follower {
    name: String,
    reader: Reader,
    last: Versions,
    relayed: usize,
    acks: usize,
}

/// What a reader that reads again was sent of the past.
#[derive(Debug)]
struct Past {
    /// Positions older than the newest when it read again, and the bytes of all.
    positions: BTreeMap<u64, usize>,
    bytes: usize,
    /// The youngest of them.
    until: Option<SystemTime>,
    /// How many versions there were.
    committed: u64,
    /// How soon it had the newest of every room.
    newest_after: Duration,
}

impl Follower {
    fn new(name: &str, reader: Reader) -> Self {
        Self { name: name.to_owned(), reader, last: Versions::new(), relayed: 0, acks: 0 }
    }

    /// The next thing seen, if that is a position.
    async fn see(&mut self) -> Option<Position> {
        let Self { name, reader, last, relayed, acks } = self;
        match reader.next().await {
            Seen::Position(position) => {
                let before = last.insert(position.room, position.version);
                assert!(before < Some(position.version), "{name}: {position:?} after {before:?}");
                return Some(position);
            }
            Seen::Relayed(chat) => {
                assert_eq!(chat["message"]["turn"], *relayed, "{name}: in order, and each once");
                *relayed += 1;
            }
            Seen::Ack(_, body) => {
                // The others are of the joins, before.
                let is_asked = body == json!(NOWHERE.to_string());
                assert!(is_asked || *acks == 0, "{name}: {body}");
                *acks += usize::from(is_asked);
            }
            other => panic!("{name} saw {other:?}"),
        }
        None
    }

    /// A stock client's connection, before anything else.
    async fn see_connect(&mut self) {
        let Reader::Stock(client) = &mut self.reader else { unreachable!("is connected") };
        assert_eq!(client.next().await["kind"], "connect");
    }

    /// Reads until it has these versions.
    async fn reach(&mut self, versions: &Versions) {
        while !self.has(versions) {
            self.see().await;
        }
    }

    fn has(&self, versions: &Versions) -> bool {
        versions.iter().all(|(room, version)| self.last.get(room) >= Some(version))
    }

    /// Reads again, where there was something newer than this.
    async fn catch_up(&mut self, newest: &Versions, relayed: usize, acks: usize) -> Past {
        let began = Instant::now();
        let mut past = Past {
            positions: newest.keys().map(|room| (*room, 0)).collect(),
            bytes: 0,
            until: None,
            committed: newest.iter().map(|(room, version)| version - self.last[room]).sum(),
            newest_after: Duration::ZERO,
        };
        while !self.has(newest) || self.relayed < relayed || self.acks < acks {
            let Some(position) = self.see().await else { continue };
            if position.version < newest[&position.room] {
                *past.positions.get_mut(&position.room).expect("a room") += 1;
                past.bytes += position.bytes;
                past.until = past.until.max(Some(position.at));
            }
            if past.newest_after.is_zero() && self.has(newest) {
                past.newest_after = began.elapsed();
            }
        }
        past
    }
}

impl Past {
    /// Was it no more than what may be on its way to somebody who stops reading at that time?
    fn check(&self, name: &str, stopped: SystemTime) {
        println!("{name}: {self:?}");
        let positions: usize = self.positions.values().sum();
        let largest = self.bytes.div_ceil(positions.max(1)) + 64;
        assert!(self.bytes <= WINDOW + largest, "{name}: {self:?}");
        assert!((positions as u64) < self.committed, "{name}: nothing was left out: {self:?}");
        let until = self.until.map_or(Duration::ZERO, |at| at.duration_since(stopped).unwrap_or_default());
        assert!(until <= PATIENCE + SLACK, "{name}: sent on for {until:?}: {self:?}");
        assert!(self.newest_after <= SLACK, "{name}: {self:?}");
    }
}

/// Says something in a room and waits until it was relayed.
async fn say(speaker: &mut WebSocket, room: u64, turn: usize, pad: usize) {
    let message = json!({"turn": turn, "pad": "x".repeat(pad)});
    let ack = speaker.emit("chat", &json!({"message": message, "roomName": room})).await;
    loop {
        match speaker.next().await {
            Seen::Ack(number, body) if number == ack => {
                assert_eq!(body["message"], message);
                return;
            }
            Seen::End => panic!("the speaker was disconnected"),
            _ => {}
        }
    }
}

/// A location whose every update has so many bytes.
async fn create_large(server: &TestServer, bytes: usize) -> u64 {
    let body = json!({"geometry": point(0.5, 0.5), "properties": {"pad": "x".repeat(bytes)}});
    let (status, answer) = server.post(&body).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    answer["data"]["location"]["id"].as_u64().expect("an id")
}

async fn create(server: &TestServer, count: usize) -> Vec<u64> {
    join_all((0..count).map(|_| server.create_at(0.5, 0.5))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stops_reading_gets_what_was_on_its_way_and_then_the_newest() {
    let _share = machine::quarter().await;
    let (server, _log) = Process::serve(Db::Sqlite, &[SOCKETS]).await;
    let nginx = Nginx::start(&server).await;
    let rooms = create(&server, 3).await;
    let (direct, path) = (server.gateway.as_str(), "/socket.io/");
    let mut followers = [
        Follower::new("websocket", Reader::websocket(direct, path, false, &rooms).await),
        Follower::new("full window", Reader::websocket(direct, path, true, &rooms).await),
        Follower::new("websocket, nginx", Reader::websocket(&nginx.url, "/chat/", false, &rooms).await),
        Follower::new("full window, nginx", Reader::websocket(&nginx.url, "/chat/", true, &rooms).await),
        Follower::new("polling", Reader::polling(direct, path, &rooms).await),
        Follower::new("polling, nginx", Reader::polling(&nginx.url, "/chat/", &rooms).await),
    ];
    let mut speaker = WebSocket::connect(direct).await;
    speaker.join(&rooms[1..2]).await;

    let load = Load::start(&server.api, &rooms, &[50, 5, 1]);
    // All of them keep up for a while.
    let begun = rooms.iter().zip([30, 4, 2]).map(|(room, version)| (*room, version)).collect();
    join_all(followers.iter_mut().map(|follower| follower.reach(&begun))).await;

    let stopped = SystemTime::now();
    let ends = Instant::now() + Duration::from_secs(7);
    for turn in 0..23 {
        say(&mut speaker, rooms[1], turn, 0).await;
        if turn % 8 == 0 {
            join_all(followers.iter_mut().map(|follower| follower.reader.ask())).await;
            sleep(Duration::from_secs(2)).await;
        }
    }
    sleep_until(ends).await;
    let newest = load.heads();
    let pasts = join_all(followers.iter_mut().map(|follower| follower.catch_up(&newest, 23, 3))).await;
    for (past, follower) in pasts.iter().zip(&followers) {
        past.check(&follower.name, stopped);
    }

    // And they keep up as before.
    let heads = load.stop().await;
    join_all(followers.iter_mut().map(|follower| follower.reach(&heads))).await;
    drop(followers);
    drop(nginx);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_busy_gets_what_was_on_its_way_and_then_the_newest() {
    let _share = machine::quarter().await;
    let (server, _log) = Process::serve(Db::Sqlite, &[SOCKETS]).await;
    let rooms = create(&server, 3).await;
    let clients = Clients::start();
    let mut followers = Vec::new();
    for (version, transport) in KINDS {
        let client = clients.connect_as(version, transport, &server.gateway).await;
        for room in &rooms {
            client.emit("join_room", json!({"locationId": room}));
        }
        followers.push(Follower::new(&format!("{version} {transport}"), Reader::Stock(client)));
    }
    let mut speaker = WebSocket::connect(&server.gateway).await;
    speaker.join(&rooms[1..2]).await;
    // Fewer than fill the window: what ends it is time.
    let load = Load::start(&server.api, &rooms, &[20, 5, 1]);
    let begun = rooms.iter().zip([12, 4, 2]).map(|(room, version)| (*room, version)).collect();
    join_all(followers.iter_mut().map(|follower| follower.reach(&begun))).await;

    let time = Duration::from_secs(9);
    let stopped = SystemTime::now();
    let meanwhile = async {
        for turn in 0..23 {
            say(&mut speaker, rooms[1], turn, 0).await;
            sleep(time / 25).await;
        }
        // Before they read again: what is committed then may be sent as it comes.
        load.heads()
    };
    let ((), newest) = tokio::join!(clients.block(time), meanwhile);
    let pasts = join_all(followers.iter_mut().map(|follower| follower.catch_up(&newest, 23, 0))).await;
    for (past, follower) in pasts.iter().zip(&followers) {
        past.check(&follower.name, stopped);
    }

    let heads = load.stop().await;
    join_all(followers.iter_mut().map(|follower| follower.reach(&heads))).await;
    server.stop().await;
}

/// Reads on, but less than what is sent: it must not be led further and further back.
#[tokio::test(flavor = "multi_thread")]
async fn who_reads_slowly_is_never_far_behind() {
    let _share = machine::quarter().await;
    let (server, _log) = Process::serve(Db::Sqlite, &[SOCKETS]).await;
    let room = create_large(&server, 4_000).await;
    let mut followers = Vec::new();
    for narrow in [false, true] {
        let reader = Reader::websocket(&server.gateway, "/socket.io/", narrow, &[room]).await;
        followers.push(Follower::new(if narrow { "narrow" } else { "wide" }, reader));
    }
    let load = Load::start(&server.api, &[room], &[50]);
    let ends = Instant::now() + Duration::from_secs(10);
    join_all(followers.iter_mut().map(async |follower| {
        let (mut read, mut oldest) = (0, Duration::ZERO);
        while Instant::now() < ends {
            let position = follower.see().await.expect("a position");
            oldest = oldest.max(position.at.elapsed().unwrap_or_default());
            read += 1;
            // 20 KiB a second.
            sleep(Duration::from_millis(200)).await;
        }
        println!("{}: {read} positions, {oldest:?} old at most", follower.name);
        assert!(oldest <= PATIENCE, "{}: {oldest:?} behind", follower.name);
    }))
    .await;
    let heads = load.stop().await;
    join_all(followers.iter_mut().map(|follower| follower.reach(&heads))).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_too_much_waits_for_comes_back_and_misses_nothing() {
    let _share = machine::half().await;
    let (server, mut log) = Process::serve(Db::Sqlite, &[SOCKETS]).await;
    let rooms = create(&server, 8).await;
    let since = Vec::from_iter(rooms.iter().map(|room| (*room, Some(0))));
    let mut followers = Followers::start(1, &server.gateway);
    for kind in KINDS {
        followers.add(kind, &since);
    }
    followers.reach(&Versions::new()).await;
    let load = Load::start(&server.api, &rooms[..2], &[20, 5]);

    let meanwhile = async {
        // More than the window: everybody hears of every location that is made.
        for _ in 0..40 {
            create(&server, 10).await;
        }
        // And 320 events: whoever is in a room hears of everybody who comes, while they are few.
        let mut here = Vec::new();
        for user in 1..=40 {
            let mut client = WebSocket::connect(&server.gateway).await;
            client.emit("join", &json!({"userId": 1_000 + user})).await;
            for room in &rooms {
                let joined = client.emit("join_room", &json!({"locationId": room})).await;
                while !matches!(client.next().await, Seen::Ack(number, _) if number == joined) {}
            }
            here.push(client);
        }
        here
    };
    let ((), _here) = tokio::join!(followers.block(Duration::from_secs(8)), meanwhile);
    followers.reach(&load.stop().await).await;
    for follower in followers.summary().await {
        assert_eq!((follower.connects, follower.reasons.len()), (2, 1), "{follower:#?}");
        assert!(follower.rooms.iter().all(|room| room.recovered == 2), "{follower:#?}");
    }
    // Who polls is missed only with the heartbeat.
    for _ in KINDS.iter().filter(|kind| kind.1 == "websocket") {
        let end = log.find("disconnect", &[("reason", "too_much_waits")]).await;
        assert_ne!(end["rooms"], "", "{end}");
        log.read.retain(|line| *line != end);
    }
    server.stop().await;
}

/// Reads every version up to this one, in order; returns how old each was.
async fn follow(client: &mut WebSocket, room: u64, last: &mut u64, to: u64) -> Vec<Duration> {
    let mut latencies = Vec::new();
    while *last < to {
        match client.next().await {
            Seen::Position(position) if position.room == room => {
                assert_eq!(position.version, *last + 1);
                *last = position.version;
                latencies.push(position.at.elapsed().unwrap_or_default());
            }
            other => panic!("{other:?}"),
        }
    }
    latencies
}

/// What the kernel knows of a process.
fn status(process: &Process, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect(field);
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().expect("a number")
}
