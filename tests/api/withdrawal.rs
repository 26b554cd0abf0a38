//! Rights that end: whoever loses sight of a location is told, and is sent nothing more of it from a second
//! after, however they are connected and however badly they read. The others notice nothing.

use std::{
    collections::HashMap,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use futures_util::future::{join, join_all};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};

use crate::{
    on_both_databases, on_one_database,
    support::{
        Db, TestDatabase, TestServer, answer,
        clients::{Client, Clients, KINDS},
        history::version,
        machine, point,
        polling::Polling,
        process::{Log, Process},
        proxy::Proxy,
        tokens::{KEY, mint, mint_for, token},
        truth::Random,
        websocket::{Position, Seen, WebSocket},
    },
};

on_both_databases!(
    who_loses_a_right_is_told_and_sent_nothing_more_and_the_others_miss_nothing,
    a_deleted_location_is_heard_of_no_more,
    a_join_under_way_does_not_outlive_the_right,
);

on_one_database!(
    a_share_that_ends_ends_what_came_by_it,
    a_token_that_ends_ends_its_socket,
    a_fresh_token_keeps_the_socket_and_its_rooms,
    a_fresh_token_without_the_role_ends_what_only_the_role_gave,
    who_does_not_read_is_handed_nothing_of_a_room_that_is_withdrawn,
    who_has_left_a_room_is_handed_nothing_of_it_either,
);

/// A line for each of thousands of requests helps nobody.
const QUIET: (&str, &str) = ("RUST_LOG", "warn,georoom::server=info");

/// From so long after a right has ended nothing more is handed over.
const WITHDRAWN: Duration = Duration::from_secs(1);
/// As long as a token is taken after its end.
const LEEWAY_MS: i64 = 30_000;
/// Until a server notices what another one has changed.
const NOTICED: Duration = Duration::from_secs(4);
/// Longer than anything here takes on a busy machine; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(30);

const OWNER: u64 = 10;
const MEMBER: u64 = 20;
const STRANGER: u64 = 30;

/// A room that nobody is in: leaving it only asks for an ack.
const NOWHERE: u64 = 9_007_199_254_740_991;

/// What a client shows.
#[derive(Clone)]
enum Shows {
    Token(String),
    Share(String),
}

impl Shows {
    fn user(user: u64) -> Self {
        Self::Token(token(user))
    }

    fn auth(&self) -> Value {
        match self {
            Self::Token(token) => json!({"token": token}),
            Self::Share(share) => json!({"share": share}),
        }
    }
}

async fn call(
    server: &TestServer,
    by: &Shows,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> (StatusCode, Value) {
    let request = server.http.request(method, format!("{}{path}", server.api));
    let request = match by {
        Shows::Token(token) => request.bearer_auth(token),
        Shows::Share(share) => request.header("X-Share-Token", share),
    };
    let request = match body {
        Some(body) => request.json(&body),
        None => request,
    };
    answer(request.send().await.expect("an answer")).await
}

/// The owner's location, whose every update has a few more bytes than these.
async fn create(server: &TestServer, bytes: usize) -> u64 {
    let body = json!({"geometry": point(0.5, 0.5), "properties": {"pad": "x".repeat(bytes)}});
    let (status, answer) = call(server, &Shows::user(OWNER), Method::POST, "/location", Some(body)).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    answer["data"]["location"]["id"].as_u64().expect("an id")
}

/// Moves the owner's location; returns its version.
async fn moved(server: &TestServer, id: u64) -> u64 {
    let body = json!({"geometry": point(1.5, 0.5)});
    let path = format!("/location/{id}");
    let (status, answer) = call(server, &Shows::user(OWNER), Method::PUT, &path, Some(body)).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    version(&answer["data"]["updatedLocationResult"])
}

async fn admit(server: &TestServer, id: u64, user: u64) {
    let path = format!("/location/{id}/members/{user}");
    let body = json!({"role": "viewer"});
    let (status, answer) = call(server, &Shows::user(OWNER), Method::PUT, &path, Some(body)).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
}

/// A share that ends after so long: its path, and its secret.
async fn share(server: &TestServer, id: u64, time: Duration) -> (String, Shows) {
    let ends = humantime::format_rfc3339_millis(SystemTime::now() + time).to_string();
    let path = format!("/location/{id}/shares");
    let body = json!({"expiresAt": ends});
    let (status, answer) = call(server, &Shows::user(OWNER), Method::POST, &path, Some(body)).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    let share = &answer["data"]["share"];
    (format!("{path}/{}", share["id"]), Shows::Share(share["token"].as_str().expect("a token").to_owned()))
}

/// Deletes something of the owner's; returns when that was answered.
async fn delete(server: &TestServer, path: &str) -> Instant {
    let (status, answer) = call(server, &Shows::user(OWNER), Method::DELETE, path, None).await;
    assert_eq!(status, StatusCode::NO_CONTENT, "{path}: {answer}");
    Instant::now()
}

/// The owner moves a location so many times a second, until it is gone or that is enough.
struct Load {
    head: watch::Receiver<u64>,
    enough: Arc<AtomicBool>,
    writers: JoinSet<()>,
}

impl Load {
    fn start(server: &TestServer, id: u64, rate: u32) -> Self {
        let writers = rate.div_ceil(10);
        let (told, head) = watch::channel(1);
        let enough = Arc::<AtomicBool>::default();
        let mut tasks = JoinSet::new();
        for writer in 0..writers {
            let (http, told, enough) = (server.http.clone(), told.clone(), enough.clone());
            let (url, token) = (format!("{}/location/{id}", server.api), token(OWNER));
            let mut ticks = interval(Duration::from_secs(1) * writers / rate);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            tasks.spawn(async move {
                for turn in 0_u32.. {
                    ticks.tick().await;
                    if enough.load(Ordering::Relaxed) {
                        return;
                    }
                    let geometry = point(f64::from(writer) + 0.5, f64::from(turn % 1_000) / 1024.0 + 0.03125);
                    let body = json!({"geometry": geometry});
                    let answered = http.put(&url).bearer_auth(&token).json(&body).send().await;
                    let (status, body) = answer(answered.expect("an answer")).await;
                    if status == StatusCode::NOT_FOUND {
                        return;
                    }
                    assert_eq!(status, StatusCode::CREATED, "{body}");
                    let version = version(&body["data"]["updatedLocationResult"]);
                    told.send_modify(|head| *head = version.max(*head));
                }
            });
        }
        Self { head, enough, writers: tasks }
    }

    /// Waits for so many more versions.
    async fn wrote(&mut self, more: u64) {
        let goal = *self.head.borrow() + more;
        let waited = timeout(PATIENCE, self.head.wait_for(|head| *head >= goal)).await;
        waited.expect("writing goes on").expect("writers");
    }

    /// Returns the newest version.
    async fn stop(mut self) -> u64 {
        self.enough.store(true, Ordering::Relaxed);
        while let Some(ended) = self.writers.join_next().await {
            ended.expect("a writer that saw nothing wrong");
        }
        *self.head.borrow()
    }
}

/// Somebody who is connected.
enum Reader {
    WebSocket(WebSocket),
    Polling(Polling),
    Stock(Client),
}

impl Reader {
    async fn websocket(gateway: &str, by: &Shows) -> Self {
        let auth = by.auth().to_string();
        Self::WebSocket(WebSocket::connect_with(gateway, "/socket.io/", false, &auth).await)
    }

    async fn polling(gateway: &str, by: &Shows) -> Self {
        Self::Polling(Polling::connect_with(gateway, "/socket.io/", &by.auth().to_string()).await)
    }

    async fn stock(clients: &Clients, kind: (&str, &str), gateway: &str, by: &Shows) -> Self {
        let mut client = open(clients, kind, gateway, by);
        client.connected().await;
        Self::Stock(client)
    }

    /// One of every kind of them.
    async fn all(clients: &Clients, gateway: &str, by: &Shows) -> Vec<Self> {
        let mut all = vec![Self::websocket(gateway, by).await, Self::polling(gateway, by).await];
        for kind in KINDS {
            all.push(Self::stock(clients, kind, gateway, by).await);
        }
        all
    }

    async fn next(&mut self) -> Seen {
        match self {
            Self::WebSocket(client) => client.next().await,
            Self::Polling(client) => Seen::read(&client.next().await),
            Self::Stock(client) => {
                let mut saw = client.next().await;
                let body = saw.pointer_mut("/args/0").map_or(Value::Null, Value::take);
                match (saw["kind"].as_str(), saw["event"].as_str()) {
                    (Some("event"), Some("chat")) => match Position::read(&body.to_string()) {
                        Some(position) => Seen::Position(position),
                        None => Seen::Relayed(body),
                    },
                    (Some("event"), Some("room_closed")) => Seen::RoomClosed(body),
                    (Some("event"), Some("exception")) => Seen::Exception(body),
                    (Some("ack"), _) => Seen::Ack(saw["ack"].as_u64().expect("a number"), body),
                    (Some("disconnect"), _) => Seen::End,
                    _ => panic!("{saw}"),
                }
            }
        }
    }

    async fn emit(&mut self, event: &str, payload: &Value) {
        match self {
            Self::WebSocket(client) => drop(client.emit(event, payload).await),
            Self::Polling(client) => client.send(&format!(r#"420["{event}",{payload}]"#)).await,
            Self::Stock(client) => drop(client.emit_for_ack(event, payload.clone())),
        }
    }

    /// Sends an event; returns its ack and what was seen before that. There is no other ack to come.
    async fn ask(&mut self, event: &str, payload: Value) -> (Value, Vec<Seen>) {
        self.emit(event, &payload).await;
        let mut seen = Vec::new();
        loop {
            match self.next().await {
                Seen::Ack(_, body) => return (body, seen),
                Seen::End => panic!("ended before the ack of {event}: {seen:?}"),
                other => seen.push(other),
            }
        }
    }

    /// Joins a room that nobody moves, and reads its state.
    async fn join(&mut self, id: u64) -> u64 {
        let (ack, before) = self.ask("join_room", json!({"locationId": id})).await;
        assert_eq!(ack, json!(id.to_string()));
        assert!(before.is_empty(), "{before:?}");
        let Seen::Position(Position { room, version, .. }) = self.next().await else { panic!("no state") };
        assert_eq!(room, id);
        version
    }

    /// Everything it was sent up to now.
    async fn drain(&mut self) -> Vec<Seen> {
        self.ask("leave_room", json!({"locationId": NOWHERE})).await.1
    }

    /// Goes on reading until it is over; returns what it was sent.
    async fn linger(&mut self, mut over: watch::Receiver<Option<u64>>) -> Vec<Seen> {
        let mut seen = Vec::new();
        while over.borrow().is_none() {
            if let Self::Polling(_) = self {
                // A poll must not be broken off.
                seen.extend(self.drain().await);
                let _ = timeout(Duration::from_millis(100), over.changed()).await;
            } else if let Ok(next) = timeout(Duration::from_millis(100), self.next()).await {
                // Says nothing: an answer would bring a question along.
                assert!(!matches!(next, Seen::End), "ended after {seen:?}");
                seen.push(next);
            }
        }
        seen.extend(self.drain().await);
        seen
    }

    /// Tries to join; returns the code of the refusal.
    async fn refused(&mut self, id: u64) -> String {
        let (ack, before) = self.ask("join_room", json!({"locationId": id})).await;
        assert!(before.is_empty(), "{before:?}");
        ack["code"].as_str().unwrap_or_else(|| panic!("let in: {ack}")).to_owned()
    }

    async fn gone(&mut self) {
        match self.next().await {
            Seen::End => {}
            other => panic!("{other:?}"),
        }
    }
}

fn open(clients: &Clients, (generation, transport): (&str, &str), url: &str, by: &Shows) -> Client {
    let mut opts = json!({"transports": [transport]});
    opts[if generation == "2" { "query" } else { "auth" }] = by.auth();
    clients.open(generation, url, opts)
}

/// Why a client was not let in.
fn refusal(said: &Value) -> &Value {
    match said["kind"].as_str() {
        Some("connect_error") => &said["message"],
        Some("error") => &said["value"],
        _ => panic!("{said}"),
    }
}

/// What somebody saw of the one room they were in.
struct Story {
    reader: Reader,
    versions: Vec<u64>,
    /// Why the room was closed, and when.
    closed: Option<(Value, Instant)>,
    /// Seen after that.
    after: Vec<Seen>,
}

impl Story {
    /// Reads until there is a version after `last`, once that is known; whoever has lost the room, until then.
    async fn read(mut reader: Reader, id: u64, last: watch::Receiver<Option<u64>>) -> Self {
        let (mut versions, mut closed) = (vec![reader.join(id).await], None);
        while closed.is_none() {
            match reader.next().await {
                Seen::Position(position) => {
                    assert_eq!(position.room, id);
                    versions.push(position.version);
                    if last.borrow().is_some_and(|last| position.version > last) {
                        break;
                    }
                }
                Seen::RoomClosed(body) => closed = Some((body, Instant::now())),
                other => panic!("{other:?} after {:?}", versions.last()),
            }
        }
        let after = if closed.is_some() { reader.linger(last).await } else { Vec::new() };
        Self { reader, versions, closed, after }
    }

    /// Nothing is missing up to the last.
    fn check_dense(&self) {
        for pair in self.versions.windows(2) {
            assert_eq!(pair[1], pair[0] + 1, "of {:?}", self.versions);
        }
    }

    /// Told in time, still connected, and sent nothing more up to now.
    async fn check_closed(mut self, id: u64, reason: &str, ended: Instant) -> Reader {
        self.check_dense();
        let (body, at) = self.closed.take().unwrap_or_else(|| panic!("not told: {:?}", self.versions));
        assert_eq!(body, json!({"roomName": id.to_string(), "reason": reason}));
        let late = at.saturating_duration_since(ended);
        assert!(late <= WITHDRAWN, "told {late:?} after");
        assert!(self.after.is_empty(), "after the room was closed: {:?}", self.after);
        self.reader
    }
}

/// Who is told what is over, and reads beside everything else.
struct Audience {
    last: watch::Sender<Option<u64>>,
    stories: Vec<(usize, JoinHandle<Story>)>,
}

impl Audience {
    fn new() -> Self {
        Self { last: watch::Sender::new(None), stories: Vec::new() }
    }

    /// Readers of some group.
    fn add(&mut self, group: usize, readers: impl IntoIterator<Item = Reader>, id: u64) {
        for reader in readers {
            self.stories.push((group, tokio::spawn(Story::read(reader, id, self.last.subscribe()))));
        }
    }

    /// What each saw, once they have been told what is the last.
    async fn stories(self) -> Vec<(usize, Story)> {
        let mut stories = Vec::new();
        for (group, story) in self.stories {
            let story = timeout(PATIENCE, story).await;
            let story = story.unwrap_or_else(|_| panic!("group {group} was neither told nor sent all"));
            stories.push((group, story.expect("somebody who saw nothing wrong")));
        }
        stories
    }
}

/// 200 sockets at 50 updates a second; eight members and a share go, as many stay.
async fn who_loses_a_right_is_told_and_sent_nothing_more_and_the_others_miss_nothing(db: Db) {
    const GROUPS: usize = 9;
    let _share = machine::whole().await;
    let (server, _log) = Process::serve(db, &[KEY, QUIET]).await;
    let clients = Clients::start();
    let id = create(&server, 0).await;
    let mut audience = Audience::new();
    let mut paths = Vec::new();
    for side in 0..2 {
        for group in 0..GROUPS {
            let (path, by) = if group == 0 {
                share(&server, id, Duration::from_secs(600)).await
            } else {
                let user = MEMBER + (side * GROUPS + group) as u64;
                admit(&server, id, user).await;
                (format!("/location/{id}/members/{user}"), Shows::user(user))
            };
            let sockets =
                (0..if group < 2 { 4 } else { 10 }).map(|_| Reader::websocket(&server.gateway, &by));
            audience.add(side * GROUPS + group, join_all(sockets).await, id);
            if group < 2 {
                audience.add(side * GROUPS + group, Reader::all(&clients, &server.gateway, &by).await, id);
            }
            if group == 2 {
                audience.add(side * GROUPS + group, [Reader::polling(&server.gateway, &by).await], id);
            }
            paths.push(path);
        }
    }
    let readers = audience.stories.len();
    assert!(readers >= 190, "{readers} sockets");

    let mut load = Load::start(&server, id, 50);
    load.wrote(50).await;
    let ended = join_all(paths[..GROUPS].iter().map(|path| delete(&server, path))).await;
    load.wrote(100).await;
    let head = load.stop().await;
    audience.last.send_replace(Some(head));
    let last = moved(&server, id).await;
    let stories = audience.stories().await;
    assert!(ended.iter().all(|at| at.elapsed() > WITHDRAWN));

    for (group, story) in stories {
        if group < GROUPS {
            let mut reader = story.check_closed(id, "revoked", ended[group]).await;
            assert_eq!(reader.refused(id).await, "not_found");
        } else {
            assert!(story.closed.is_none(), "group {group} is to stay");
            story.check_dense();
            assert_eq!(story.versions.last(), Some(&last));
        }
    }
    server.stop().await;
}

async fn a_share_that_ends_ends_what_came_by_it(db: Db) {
    let _share = machine::half().await;
    let (server, _log) = Process::serve(db, &[KEY, QUIET]).await;
    let clients = Clients::start();
    let id = create(&server, 0).await;
    let (_, longer) = share(&server, id, Duration::from_secs(600)).await;
    let mut audience = Audience::new();
    audience.add(1, [Reader::websocket(&server.gateway, &longer).await], id);
    let time = Duration::from_secs(4);
    let ends = Instant::now() + time;
    let (_, brief) = share(&server, id, time).await;
    audience.add(0, Reader::all(&clients, &server.gateway, &brief).await, id);
    let path = format!("/location/{id}");
    assert_eq!(call(&server, &brief, Method::GET, &path, None).await.0, StatusCode::OK);

    let mut load = Load::start(&server, id, 50);
    sleep_until(ends).await;
    // Ended at last by the time that its own answer took.
    let ended = Instant::now() + Duration::from_millis(200);
    load.wrote(75).await;
    sleep_until(ended + WITHDRAWN).await;
    let head = load.stop().await;
    audience.last.send_replace(Some(head));
    let last = moved(&server, id).await;
    for (group, story) in audience.stories().await {
        if group == 0 {
            assert!(story.closed.as_ref().is_some_and(|(_, at)| *at >= ends), "told before it was over");
            let mut reader = story.check_closed(id, "expired", ended).await;
            assert_eq!(reader.refused(id).await, "not_found");
        } else {
            story.check_dense();
            assert_eq!((story.versions.last(), story.closed), (Some(&last), None));
        }
    }

    for kind in KINDS {
        let mut client = open(&clients, kind, &server.gateway, &brief);
        let said = client.next().await;
        assert_eq!(refusal(&said), "share_expired");
    }
    for path in [path.clone(), format!("{path}/history")] {
        let (status, body) = call(&server, &brief, Method::GET, &path, None).await;
        assert_eq!((status, &body["code"]), (StatusCode::UNAUTHORIZED, &json!("share_expired")), "{path}");
    }
    let Shows::Share(secret) = &brief else { unreachable!() };
    let (status, body) = server.get(&format!("{path}?share={secret}")).await;
    assert_eq!((status, &body["code"]), (StatusCode::UNAUTHORIZED, &json!("share_expired")));
    server.stop().await;
}

async fn a_deleted_location_is_heard_of_no_more(db: Db) {
    let _share = machine::half().await;
    let (server, _log) = Process::serve(db, &[KEY, QUIET]).await;
    let clients = Clients::start();
    let id = create(&server, 0).await;
    admit(&server, id, MEMBER).await;
    let (_, guest) = share(&server, id, Duration::from_secs(600)).await;
    let mut audience = Audience::new();
    for (group, by) in [Shows::user(OWNER), Shows::user(MEMBER), guest].into_iter().enumerate() {
        audience.add(group, Reader::all(&clients, &server.gateway, &by).await, id);
    }
    let mut load = Load::start(&server, id, 50);
    load.wrote(30).await;
    let ended = delete(&server, &format!("/location/{id}")).await;
    load.stop().await;
    // Whatever is late is to have come.
    sleep_until(ended + WITHDRAWN).await;
    audience.last.send_replace(Some(0));
    for (_, story) in audience.stories().await {
        let mut reader = story.check_closed(id, "deleted", ended).await;
        assert_eq!(reader.refused(id).await, "not_found");
    }
    server.stop().await;
}

/// A token that is taken for the time given, at most a second less.
fn brief(user: u64, is_admin: bool, ms: i64) -> String {
    mint_for(ms - LEEWAY_MS, user, None, is_admin)
}

async fn a_token_that_ends_ends_its_socket(db: Db) {
    const TAKEN_MS: i64 = 4_000;
    let _share = machine::half().await;
    let (server, _log) = Process::serve(db, &[KEY, QUIET]).await;
    let clients = Clients::start();
    let id = create(&server, 0).await;
    admit(&server, id, MEMBER).await;
    let load = Load::start(&server, id, 50);
    let ends = Instant::now() + Duration::from_millis(TAKEN_MS as u64);
    let by = Shows::Token(brief(MEMBER, false, TAKEN_MS));
    let mut readers = Reader::all(&clients, &server.gateway, &by).await;
    for reader in &mut readers {
        reader.emit("join_room", &json!({"locationId": id})).await;
        // Somebody else's, of nobody, and one that has ended: nothing of it counts.
        for (token, code) in [
            (token(STRANGER), "invalid_token"),
            ("x.y.z".to_owned(), "invalid_token"),
            (brief(MEMBER, false, -1_000), "token_expired"),
        ] {
            let (mut ack, _) = reader.ask("authenticate", json!({"token": token})).await;
            if ack == json!(id.to_string()) {
                // Of the join.
                let Seen::Ack(_, next) = next_ack(reader).await else { unreachable!() };
                ack = next;
            }
            assert_eq!(ack["code"], code, "{ack}");
        }
    }
    // At once: who reads late is cut, and is not told why.
    join_all(readers.into_iter().enumerate().map(async |(at, mut reader)| {
        let (mut last, mut count) = (None, 0);
        let refusal = loop {
            match reader.next().await {
                Seen::Position(position) => {
                    assert!(last.is_none_or(|last| position.version == last + 1));
                    last = Some(position.version);
                    count += 1;
                }
                Seen::Exception(body) => break body,
                other => panic!("{at}: {other:?}"),
            }
        };
        assert!(count > 10, "{at}: {count} positions before the end");
        assert_eq!((&refusal["status"], &refusal["code"]), (&json!("error"), &json!("token_expired")));
        assert!(Instant::now() >= ends - Duration::from_millis(1_100), "{at}: too early");
        reader.gone().await;
    }))
    .await;
    assert!(Instant::now() <= ends + WITHDRAWN, "too late: {:?}", Instant::now() - ends);
    for kind in KINDS {
        let said = open(&clients, kind, &server.gateway, &by).next().await;
        assert_eq!(refusal(&said), "token_expired");
    }
    load.stop().await;
    server.stop().await;
}

async fn next_ack(reader: &mut Reader) -> Seen {
    loop {
        let seen = reader.next().await;
        if let Seen::Ack(..) = seen {
            return seen;
        }
    }
}

async fn a_fresh_token_keeps_the_socket_and_its_rooms(db: Db) {
    const TAKEN_MS: i64 = 4_000;
    let _share = machine::half().await;
    let (server, _log) = Process::serve(db, &[KEY, QUIET]).await;
    let clients = Clients::start();
    let id = create(&server, 0).await;
    admit(&server, id, MEMBER).await;
    let ends = Instant::now() + Duration::from_millis(TAKEN_MS as u64);
    let by = Shows::Token(brief(MEMBER, false, TAKEN_MS));
    let mut audience = Audience::new();
    let mut readers = Reader::all(&clients, &server.gateway, &by).await;
    let fresh = token(MEMBER);
    for reader in &mut readers {
        let before = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock").as_secs();
        let (ack, _) = reader.ask("authenticate", json!({"token": fresh})).await;
        assert!(ack["exp"].as_u64().is_some_and(|exp| exp.abs_diff(before + 3_600) <= 10), "{ack}");
    }
    audience.add(0, readers, id);
    let load = Load::start(&server, id, 50);
    sleep_until(ends + WITHDRAWN).await;
    let head = load.stop().await;
    audience.last.send_replace(Some(head));
    moved(&server, id).await;
    for (_, mut story) in audience.stories().await {
        assert_eq!(story.closed, None);
        story.check_dense();
        assert!(story.reader.drain().await.is_empty());
    }
    server.stop().await;
}

async fn a_fresh_token_without_the_role_ends_what_only_the_role_gave(db: Db) {
    let _share = machine::half().await;
    let (server, _log) = Process::serve(db, &[KEY, QUIET]).await;
    let clients = Clients::start();
    let admin = Shows::Token(mint(MEMBER, None, true));
    // In one of them somebody has asked for rights before, in the other nobody.
    let (asked, own, unasked) =
        (create(&server, 0).await, create(&server, 0).await, create(&server, 0).await);
    admit(&server, own, MEMBER).await;
    admit(&server, asked, STRANGER).await;
    let mut other = Reader::websocket(&server.gateway, &Shows::user(STRANGER)).await;
    other.join(asked).await;
    for (at, mut reader) in Reader::all(&clients, &server.gateway, &admin).await.into_iter().enumerate() {
        for id in [asked, own, unasked] {
            reader.join(id).await;
        }
        let (ack, before) = reader.ask("authenticate", json!({"token": token(MEMBER)})).await;
        assert!(ack["exp"].is_u64(), "{ack}");
        let mut closed: Vec<u64> = before
            .into_iter()
            .map(|seen| match seen {
                Seen::RoomClosed(body) => {
                    assert_eq!(body["reason"], "revoked");
                    body["roomName"].as_str().and_then(|name| name.parse().ok()).expect("an id")
                }
                other => panic!("{at}: {other:?}"),
            })
            .collect();
        closed.sort_unstable();
        assert_eq!(closed, [asked, unasked], "{at}");
        for id in [asked, unasked, own] {
            moved(&server, id).await;
        }
        // The last to be moved: whatever came of the others would be before it.
        match reader.next().await {
            Seen::Position(position) => assert_eq!(position.room, own),
            seen => panic!("{at}: {seen:?}"),
        }
        assert_eq!(reader.refused(asked).await, "not_found");
        // And back again.
        reader.ask("authenticate", json!({"token": mint(MEMBER, None, true)})).await;
        reader.join(asked).await;
        reader.ask("leave_room", json!({"locationId": asked})).await;
    }
    server.stop().await;
}

/// What the kernel has of connections that this end has not read, by this end's port: in bytes. One look for all,
/// because a machine with many connections takes its time over it.
fn on_their_way(ports: &[u16]) -> HashMap<u16, usize> {
    let table = fs::read_to_string("/proc/net/tcp").expect("the kernel's table");
    let mut bytes: HashMap<u16, usize> = ports.iter().map(|port| (*port, 0)).collect();
    for line in table.lines().skip(1) {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let mut port = || {
            let (_, port) = fields.next().expect("an address").rsplit_once(':').expect("a port");
            u16::from_str_radix(port, 16).expect("a number")
        };
        let (near, far) = (port(), port());
        let (sending, received) =
            fields.nth(1).and_then(|queues| queues.split_once(':')).expect("two queues");
        let number = |queue| usize::from_str_radix(queue, 16).expect("a number");
        if let Some(bytes) = bytes.get_mut(&near) {
            *bytes += number(received);
        } else if let Some(bytes) = bytes.get_mut(&far) {
            *bytes += number(sending);
        }
    }
    bytes
}

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
    let auth = Shows::user(MEMBER).auth().to_string();
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
    let _share = machine::half().await;
    let (server, _log) = Process::serve(db, &[KEY, QUIET]).await;
    let id = create(&server, 2_000).await;
    let others = create(&server, 0).await;
    for id in [id, others] {
        admit(&server, id, MEMBER).await;
    }
    let (gateway, member) = (&server.gateway, &Shows::user(MEMBER));
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
    let mut speaker = Reader::websocket(gateway, &Shows::user(OWNER)).await;
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

/// Members join, in cold rooms and in live ones, while they are removed.
async fn a_join_under_way_does_not_outlive_the_right(db: Db) {
    const ROUNDS: u64 = 4;
    const ROOMS: usize = 24;
    let _share = machine::half().await;
    let (server, _log) = Process::serve(db, &[KEY, QUIET]).await;
    let rooms = join_all((0..ROOMS).map(|_| create(&server, 10_000))).await;
    // A past that takes a while to read.
    for _ in 0..30 {
        join_all(rooms.iter().map(|id| moved(&server, *id))).await;
    }
    let mut owner = Reader::websocket(&server.gateway, &Shows::user(OWNER)).await;
    for id in &rooms[ROOMS / 2..] {
        owner.join(*id).await;
    }
    let (mut entered, mut refused) = (0, 0);
    for round in 0..ROUNDS {
        let over = watch::Sender::new(None);
        let (removed, mut removals) = mpsc::unbounded_channel();
        let race = async |at: usize| {
            let (id, user) = (rooms[at], 1_000 + round * 100 + at as u64);
            admit(&server, id, user).await;
            let mut sockets = Vec::new();
            for _ in 0..3 {
                sockets.push(Reader::websocket(&server.gateway, &Shows::user(user)).await);
            }
            let removal = async {
                let ended = delete(&server, &format!("/location/{id}/members/{user}")).await;
                removed.send(ended).expect("a race");
            };
            let joins = sockets.iter_mut().zip(0..).map(async |(socket, n)| {
                // Removals of all rooms wait for one another.
                let reach_us = if db == Db::MySql { 600_000 } else { 80_000 };
                let mut random = Random((round * 100 + at as u64) * 10 + n);
                sleep(Duration::from_micros(random.below(reach_us) as u64)).await;
                let (ack, before) = socket.ask("join_room", json!({"locationId": id, "since": 1})).await;
                assert!(before.is_empty(), "before the ack: {before:?}");
                (ack, socket.linger(over.subscribe()).await)
            });
            (id, join(removal, join_all(joins)).await.1)
        };
        let finish = async {
            for _ in 0..ROOMS {
                sleep_until(removals.recv().await.expect("a race") + WITHDRAWN).await;
            }
            join_all(rooms.iter().map(|id| moved(&server, *id))).await;
            over.send_replace(Some(0));
        };
        let (races, ()) = join(join_all((0..ROOMS).map(race)), finish).await;
        for (id, answers) in races {
            for (ack, after) in answers {
                let mut last = None;
                let (mut closed, was_in) = (false, ack["roomName"].as_str() == Some(id.to_string().as_str()));
                for seen in after {
                    match seen {
                        Seen::Position(position) if was_in && !closed => last = Some(position.version),
                        Seen::RoomClosed(body) if was_in && !closed => {
                            assert_eq!(body["reason"], "revoked");
                            closed = true;
                        }
                        other => panic!("{id}, {ack}: {other:?}"),
                    }
                }
                assert!(was_in || ack["code"] == "not_found", "{ack}");
                assert_eq!(closed, was_in, "{id}, round {round}: left inside, at {last:?}");
                if was_in { entered += 1 } else { refused += 1 }
            }
        }
    }
    println!("{entered} entered, {refused} were refused");
    assert!(entered > 0 && refused > 0, "no race: {entered} entered, {refused} were refused");
    server.stop().await;
}

/// The one that hears of a change is not the one that has the sockets.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_withdrawn_through_one_server_ends_on_the_other() {
    let _share = machine::half().await;
    let (server, _log) = Process::serve(Db::MySql, &[KEY, QUIET]).await;
    let other = Process::start(&[("DATABASE_URL", &server.database.url), KEY, QUIET]).await;
    let clients = Clients::start();
    let [by_member, by_share, by_location] =
        [create(&server, 0).await, create(&server, 0).await, create(&server, 0).await];
    for id in [by_member, by_location] {
        admit(&server, id, MEMBER).await;
    }
    admit(&server, by_member, STRANGER).await;
    let (path, guest) = share(&server, by_share, Duration::from_secs(600)).await;
    let mut stays = Reader::websocket(&other.gateway, &Shows::user(STRANGER)).await;
    stays.join(by_member).await;
    let member = Shows::user(MEMBER);
    for (id, by, path, reason) in [
        (by_member, &member, format!("/location/{by_member}/members/{MEMBER}"), "revoked"),
        (by_share, &guest, path, "revoked"),
        (by_location, &member, format!("/location/{by_location}"), "deleted"),
    ] {
        let mut readers = Reader::all(&clients, &other.gateway, by).await;
        for reader in &mut readers {
            reader.join(id).await;
        }
        let ended = delete(&server, &path).await;
        // At once: who reads late is cut.
        join_all(readers.iter_mut().map(async |reader| {
            match reader.next().await {
                Seen::RoomClosed(body) => {
                    assert_eq!(body, json!({"roomName": id.to_string(), "reason": reason}));
                }
                seen => panic!("{seen:?}"),
            }
            assert!(ended.elapsed() <= NOTICED, "{:?}", ended.elapsed());
            assert_eq!(reader.refused(id).await, "not_found");
        }))
        .await;
        if reason == "revoked" {
            moved(&server, id).await;
        }
        // By now the room on the other server has the update, if there is one.
        sleep_until(ended + NOTICED).await;
        for reader in &mut readers {
            let seen = reader.drain().await;
            assert!(seen.is_empty(), "{seen:?}");
        }
    }
    match stays.next().await {
        Seen::Position(position) => assert_eq!((position.room, position.version), (by_member, 2)),
        seen => panic!("{seen:?}"),
    }
    other.signal("TERM").await;
    assert_eq!(other.ended().await, Some(0));
    server.stop().await;
}

/// A server whose database can be cut off.
async fn behind_a_proxy() -> (Proxy, TestServer, Log) {
    let database = TestDatabase::create(Db::MySql).await;
    let proxy = Proxy::start(&database, None).await;
    let settings = [("DATABASE_URL", proxy.url.as_str()), KEY, QUIET];
    let (server, log) = Process::serve_on(database, &settings).await;
    (proxy, server, log)
}

/// Who was known when the database went is known.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_database_a_live_room_knows_its_members() {
    let _share = machine::half().await;
    let (proxy, server, _log) = behind_a_proxy().await;
    let clients = Clients::start();
    let (id, removed) = (create(&server, 0).await, MEMBER + 1);
    admit(&server, id, MEMBER).await;
    admit(&server, id, removed).await;
    let (_, guest) = share(&server, id, Duration::from_secs(600)).await;
    let mut resident = Reader::websocket(&server.gateway, &Shows::user(MEMBER)).await;
    resident.join(id).await;
    delete(&server, &format!("/location/{id}/members/{removed}")).await;
    let [mut member, mut owner, mut stranger, mut former] = [
        Reader::websocket(&server.gateway, &Shows::user(MEMBER)).await,
        Reader::websocket(&server.gateway, &Shows::user(OWNER)).await,
        Reader::websocket(&server.gateway, &Shows::user(STRANGER)).await,
        Reader::websocket(&server.gateway, &Shows::user(removed)).await,
    ];
    let mut visitor = Reader::websocket(&server.gateway, &guest).await;

    let addr = proxy.cut().await;
    for reader in [&mut member, &mut owner, &mut visitor] {
        assert_eq!(reader.join(id).await, 1);
    }
    for reader in [&mut stranger, &mut former] {
        assert_eq!(reader.refused(id).await, "not_found");
    }
    let path = format!("/location/{id}");
    for (by, status, code) in [
        (Shows::user(MEMBER), StatusCode::OK, Value::Null),
        (Shows::user(OWNER), StatusCode::OK, Value::Null),
        (Shows::user(STRANGER), StatusCode::NOT_FOUND, json!("not_found")),
        (Shows::user(removed), StatusCode::NOT_FOUND, json!("not_found")),
        (guest.clone(), StatusCode::SERVICE_UNAVAILABLE, json!("storage_unavailable")),
    ] {
        let (got, body) = call(&server, &by, Method::GET, &path, None).await;
        assert_eq!((got, &body["code"]), (status, &code), "{body}");
    }
    for kind in KINDS {
        let said = open(&clients, kind, &server.gateway, &guest).next().await;
        assert_eq!(refusal(&said), "storage_unavailable");
    }

    let proxy = Proxy::start(&server.database, Some(addr)).await;
    for reader in [&mut resident, &mut member, &mut owner, &mut visitor] {
        assert!(reader.drain().await.is_empty());
    }
    while server.get("/readyz").await.0 != StatusCode::OK {}
    let version = moved(&server, id).await;
    for reader in [&mut resident, &mut member, &mut owner, &mut visitor] {
        match reader.next().await {
            Seen::Position(position) => assert_eq!(position.version, version),
            seen => panic!("{seen:?}"),
        }
    }
    server.stop().await;
    proxy.cut().await;
}

/// Rights that cannot be looked up are none: what only the role gave ends with it.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_database_who_is_admin_no_more_is_not_left_inside() {
    let _share = machine::half().await;
    let (proxy, server, _log) = behind_a_proxy().await;
    let (asked, unasked) = (create(&server, 0).await, create(&server, 0).await);
    admit(&server, asked, STRANGER).await;
    let mut other = Reader::websocket(&server.gateway, &Shows::user(STRANGER)).await;
    other.join(asked).await;
    let mut admin = Reader::websocket(&server.gateway, &Shows::Token(mint(MEMBER, None, true))).await;
    for id in [asked, unasked] {
        admin.join(id).await;
    }
    let addr = proxy.cut().await;
    let (ack, before) = admin.ask("authenticate", json!({"token": token(MEMBER)})).await;
    let is_taken = ack["exp"].is_u64();
    assert!(is_taken || ack["code"] == "storage_unavailable", "{ack}");
    let proxy = Proxy::start(&server.database, Some(addr)).await;
    while server.get("/readyz").await.0 != StatusCode::OK {}
    for id in [asked, unasked] {
        moved(&server, id).await;
    }
    // Either the fresh token counts, with all that follows, or nothing of it does.
    if is_taken {
        let seen = admin.drain().await;
        assert!(!seen.iter().any(|seen| matches!(seen, Seen::Position(_))), "{ack}: {before:?}, {seen:?}");
    } else {
        for _ in [asked, unasked] {
            let seen = admin.next().await;
            assert!(matches!(seen, Seen::Position(_)), "{ack}: {before:?}, {seen:?}");
        }
        // Whether the fresh one counts is seen by what it does not give.
        admin.join(unasked).await;
        let (ack, before) = admin.ask("authenticate", json!({"token": token(MEMBER)})).await;
        assert!(ack["exp"].is_u64(), "{ack}");
        assert_eq!(before.len(), 2, "{before:?}");
        assert_eq!(admin.refused(unasked).await, "not_found");
    }
    server.stop().await;
    proxy.cut().await;
}
