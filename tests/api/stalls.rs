//! Readers that stop, stall and vanish: each is sent what was on its way and then the newest, it costs the
//! server little, and the others notice nothing.
//!
//! A stock client stalls with its event loop. Where it could not stall on purpose a client by hand does.
//! `GEOROOM_STALLED` says how many of a crowd stall, `GEOROOM_STALL_SECONDS` for how long; `make soak` asks for
//! more than `make test`.

use std::{
    collections::BTreeMap,
    env, fs,
    net::SocketAddrV4,
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
    Db, TestServer,
    clients::{Client, Clients, KINDS, VERSIONS},
    exposition::Exposition,
    followers::Followers,
    machine,
    nginx::Nginx,
    noise::{self, CUT_OFF},
    point,
    polling::Polling,
    process::{Log, Process},
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
const SLACK: Duration = Duration::from_secs(1);

/// A room that nobody is in: leaving it only asks for an ack.
const NOWHERE: u64 = 9_007_199_254_740_991;

type Versions = BTreeMap<u64, u64>;

/// Those of a crowd that do read.
const LIVE: usize = 200;

/// A number from the environment.
fn setting(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |value| value.parse().expect(name))
}

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
    let _share = machine::half().await;
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
    let _share = machine::half().await;
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
    let _share = machine::half().await;
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
    let _share = machine::half().await;
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

/// What the kernel knows of a process.
fn status(process: &Process, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect(field);
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().expect("a number")
}

/// How many connections to this address the server has not ended.
fn connections(gateway: &str) -> usize {
    not_ended(gateway).len()
}

/// The ports at the other end of connections to this address that the server has not ended.
pub(crate) fn not_ended(url: &str) -> Vec<u16> {
    let addr: SocketAddrV4 = url.strip_prefix("http://").expect("a URL").parse().expect("an address");
    let local = format!("{:08X}:{:04X}", u32::from_ne_bytes(addr.ip().octets()), addr.port());
    let table = fs::read_to_string("/proc/net/tcp").expect("/proc");
    let other_end = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let is_local = fields.next() == Some(&local);
        let (_, port) = fields.next()?.split_once(':')?;
        // 01: established, 04: the end waits behind what is not taken, 08: only the other end has ended it.
        let is_open = is_local && matches!(fields.next(), Some("01" | "04" | "08"));
        is_open.then(|| u16::from_str_radix(port, 16).expect("a port"))
    };
    table.lines().filter_map(other_end).collect()
}

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
    let _share = machine::half().await;
    let heartbeat = [("PING_INTERVAL", "1s"), ("PING_TIMEOUT", "1s"), SOCKETS];
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
    // Two for the heartbeat, one for the write deadline.
    let deadline = stopped + Duration::from_secs(3) + 2 * SLACK;
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
    let _share = machine::half().await;
    let (server, mut log) = Process::serve(Db::Sqlite, &SHORT_HEARTBEAT).await;
    let mut client = overfill(&server, 1).await.remove(0);
    is_ended(&server, &mut log, &mut client).await;
    server.stop().await;
}

/// The kernel, or a proxy, takes what it is sent.
#[tokio::test(flavor = "multi_thread")]
async fn who_reads_nothing_is_ended_though_it_is_heard_of() {
    let _share = machine::half().await;
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
    let _share = machine::half().await;
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
    let _share = machine::half().await;
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

fn quantile(sorted: &[Duration], of: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * of) as usize]
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
    let _share = machine::whole().await;
    let count = setting("GEOROOM_STALLED", 200) as usize;
    let seconds = setting("GEOROOM_STALL_SECONDS", 8);
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

/// What is unread when a WebSocket takes over from polling is no reason to ask in the midst of it.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_not_read_may_change_the_transport() {
    let _share = machine::half().await;
    let (server, _log) = Process::serve(Db::Sqlite, &[SOCKETS]).await;
    let room = create_large(&server, 4_000).await;
    // As much as makes a socket wait for confirmation, too.
    for unread in [1, 30] {
        let mut polling = Polling::connect(&server.gateway).await;
        polling.ask("join_room", &json!({"locationId": room})).await;
        let first = Position::read(&polling.chat().await).expect("a position").version;
        for turn in 0..unread {
            server.move_to(room, 0.5, f64::from(turn) / 64.0).await;
        }
        let path = "/socket.io/";
        let mut client = WebSocket::open(&server.gateway, path, Some(&polling.session), false).await;
        client.send("2probe").await;
        assert_eq!(client.text().await.as_deref(), Some("3probe"));
        // A client first ends its polling, and goes on answering pings.
        let more = timeout(Duration::from_millis(300), client.text()).await;
        assert!(more.is_err(), "{more:?}");
        client.send("5").await;
        let head = first + unread as u64;
        let mut last = first;
        while last < head {
            match client.next().await {
                Seen::Position(position) => last = position.version,
                other => panic!("{other:?}"),
            }
        }
        for turn in 0..30 {
            server.move_to(room, 0.75, f64::from(turn) / 64.0).await;
            follow(&mut client, room, &mut last, head + 1 + turn as u64).await;
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_clients_change_the_transport_amid_updates() {
    let _share = machine::half().await;
    let (server, _log) = Process::serve(Db::Sqlite, &[SOCKETS]).await;
    let rooms = create(&server, 3).await;
    let load = Load::start(&server.api, &rooms, &[30, 30, 30]);
    let clients = Clients::start();
    for turn in 0..8 {
        let opened = VERSIONS.map(|version| {
            let client = clients.open(version, &server.gateway, json!({}));
            // Sent the moment it is connected, as applications do.
            for room in &rooms {
                client.emit("join_room", json!({"locationId": room}));
            }
            client
        });
        for (version, mut client) in VERSIONS.into_iter().zip(opened) {
            assert_eq!(client.upgraded().await, "websocket");
            let mut follower = Follower::new(&format!("{version}, {turn}"), Reader::Stock(client));
            follower.see_connect().await;
            let newest = load.heads();
            follower.reach(&newest).await;
        }
    }
    load.stop().await;
    server.stop().await;
}

/// Frames that a stock client never makes. The gateway follows them to find its pongs: if it lost its place
/// it would find none, and send nothing more.
#[tokio::test(flavor = "multi_thread")]
async fn odd_frames_do_not_confuse_what_follows_them() {
    let _share = machine::half().await;
    let (server, _log) = Process::serve(Db::Sqlite, &[SOCKETS]).await;
    let room = create_large(&server, 4_000).await;
    let chat = |turn: usize, length: usize| {
        let message = json!({"turn": turn, "pad": "x".repeat(length)});
        format!(r#"42["chat",{}]"#, json!({"message": message, "roomName": room.to_string()}))
    };
    let fragmented = |packet: &str, between: &[u8]| {
        let mut frames = Vec::new();
        let parts: Vec<_> = packet.as_bytes().chunks(packet.len().div_ceil(5)).collect();
        for (at, part) in parts.iter().enumerate() {
            frames.extend(frame(if at == 0 { TEXT } else { CONTINUATION }, at + 1 == parts.len(), part));
            if at + 1 < parts.len() {
                frames.extend_from_slice(between);
                frames.extend(frame(CONTINUATION, false, b""));
            }
        }
        frames
    };
    let long_ping = frame(PING, true, &[b'x'; 125]);
    let odd = [
        ("pongs nobody asked for", [frame(PONG, true, b"").repeat(20_000), Vec::new()].concat()),
        ("long pongs", frame(PONG, true, &[0x8a; 125]).repeat(2_000)),
        ("pings", long_ping.repeat(2_000)),
        ("empty pings", frame(PING, true, b"").repeat(2_000)),
        ("fragments", fragmented(&chat(0, 10), b"")),
        ("fragments with pings between", fragmented(&chat(1, 2_000), &long_ping)),
        ("a fragment that looks like pongs", fragmented(&chat(2, 10), &frame(PONG, true, &[0x8a, 0]))),
        (
            "125 and 126 bytes",
            [
                frame(TEXT, true, chat(3, 125 - chat(3, 0).len()).as_bytes()),
                frame(TEXT, true, chat(4, 126 - chat(4, 0).len()).as_bytes()),
            ]
            .concat(),
        ),
        ("many bytes", frame(TEXT, true, chat(5, 16_000).as_bytes())),
        ("too many for a chat", frame(TEXT, true, chat(99, 70_000).as_bytes())),
    ];
    let mut follower =
        Follower::new("odd", Reader::websocket(&server.gateway, "/socket.io/", false, &[room]).await);
    let mut version = 1;
    for (what, bytes) in odd {
        follower.name = what.to_owned();
        let Reader::WebSocket(client) = &mut follower.reader else { unreachable!() };
        // In one piece, and then what is not too long byte by byte.
        let (head, tail) = bytes.split_at(bytes.len().saturating_sub(600));
        client.raw(head).await;
        for byte in tail {
            client.raw(&[*byte]).await;
        }
        // Much more than the window, each version of it.
        for _ in 0..30 {
            server.move_to(room, 0.5, f64::from(version) / 1024.0).await;
            version += 1;
            loop {
                let seen = timeout(2 * SLACK, client.next()).await;
                match seen.unwrap_or_else(|_| panic!("{what}: version {version} does not come")) {
                    Seen::Position(position) => {
                        assert_eq!(position.version, version as u64, "{what}");
                        break;
                    }
                    Seen::Relayed(chat) => {
                        assert_eq!(chat["message"]["turn"], follower.relayed, "{what}");
                        follower.relayed += 1;
                    }
                    Seen::Exception(body) => assert_eq!(body["code"], "message_too_large", "{what}"),
                    other => panic!("{what}: {other:?}"),
                }
            }
        }
    }
    assert_eq!(follower.relayed, 6);
    server.stop().await;
}
