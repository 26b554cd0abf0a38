//! The real JavaScript clients, hosted by Node processes (`tests/clients/driver.mjs`). A test has its process for
//! itself, so that it may block it; afterwards the process serves another test.

use std::{
    collections::{HashMap, VecDeque},
    process::Stdio,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    runtime::{Builder, Runtime},
    sync::mpsc,
    time::timeout,
};

use super::process::signal;

/// Longer than anything here takes on a busy machine; reached only by a test that fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The generations in use: Socket.IO 4, 3 and 2.
pub const VERSIONS: [&str; 3] = ["4", "3", "2"];

/// Each generation over WebSocket and over long-polling.
pub const KINDS: [(&str, &str); 6] = [
    ("4", "websocket"),
    ("4", "polling"),
    ("3", "websocket"),
    ("3", "polling"),
    ("2", "websocket"),
    ("2", "polling"),
];

/// What comes by itself, at times of its own: only tests of it want to see it among everything else.
pub const ASIDE: [&str; 5] = ["registered", "user_list", "presence", "locations", "notification"];

/// Runs what talks to Node processes. They outlive the test that started them, and so its runtime.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).thread_name("node").enable_all().build().expect("a runtime")
});

/// Node processes that no test uses now. To start one costs more than most tests.
static IDLE: Mutex<Vec<Driver>> = Mutex::new(Vec::new());

/// What clients see, by client.
type Routes = Arc<Mutex<HashMap<u64, mpsc::UnboundedSender<Value>>>>;

/// A Node process that hosts clients.
struct Driver {
    commands: mpsc::UnboundedSender<String>,
    routes: Routes,
    /// Killed when dropped.
    node: Child,
}

impl Driver {
    fn start() -> Self {
        let _runtime = RUNTIME.enter();
        let mut node = Command::new("node")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/driver.mjs"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("node");
        let (commands, to_send) = mpsc::unbounded_channel();
        tokio::spawn(write(node.stdin.take().expect("piped"), to_send));
        let routes = Routes::default();
        tokio::spawn(read(node.stdout.take().expect("piped"), routes.clone()));
        Self { commands, routes, node }
    }

    /// Registers a client and returns what it will see.
    fn route(&self, client: u64) -> mpsc::UnboundedReceiver<Value> {
        let (saw, seen) = mpsc::unbounded_channel();
        self.routes.lock().unwrap().insert(client, saw);
        seen
    }

    /// Ends all clients and keeps the process for another test, once it says that they have ended.
    async fn retire(self) {
        self.routes.lock().unwrap().clear();
        let mut seen = self.route(0);
        let asked = self.commands.send("{\"op\":\"reset\",\"client\":0}\n".to_owned());
        if asked.is_ok() && matches!(timeout(PATIENCE, seen.recv()).await, Ok(Some(_))) {
            IDLE.lock().unwrap().push(self);
        }
    }
}

/// JavaScript clients of one test, in a Node process that it has for itself.
pub struct Clients {
    /// None only while this is dropped.
    driver: Option<Driver>,
    /// The process goes on and can be used again.
    is_reusable: AtomicBool,
}

impl Clients {
    pub fn start() -> Self {
        let idle = IDLE.lock().unwrap().pop();
        Self { driver: Some(idle.unwrap_or_else(Driver::start)), is_reusable: AtomicBool::new(true) }
    }

    fn driver(&self) -> &Driver {
        self.driver.as_ref().expect("until it is dropped")
    }

    /// Makes a client, which then connects; see [`Client::connected`].
    pub fn open(&self, version: &str, url: &str, opts: Value) -> Client {
        let client = self.attach();
        client.command(json!({"op": "connect", "version": version, "url": url, "opts": opts}));
        client
    }

    /// Keeps Node busy with nothing, so that no client reads; returns when they do again.
    pub async fn block(&self, time: Duration) {
        let mut node = self.attach();
        node.command(json!({"op": "block", "ms": time.as_millis() as u64}));
        assert_eq!(node.next().await["kind"], "unblocked");
    }

    /// Sends Node a signal.
    pub async fn signal(&self, name: &str) {
        self.is_reusable.store(false, Ordering::Relaxed);
        signal(&self.driver().node, name).await;
    }

    /// Somebody the driver knows nothing of yet.
    pub(super) fn attach(&self) -> Client {
        // Never again: what an ended client still has to say must not reach another.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Client {
            id,
            commands: self.driver().commands.clone(),
            seen: self.driver().route(id),
            unread: VecDeque::new(),
            upgrades: Vec::new(),
            acks: 0,
            hears_all: false,
        }
    }

    /// A connected Socket.IO 4 client over WebSocket.
    pub async fn connect(&self, url: &str) -> Client {
        self.connect_as("4", "websocket", url).await
    }

    /// A connected client of some generation over one transport.
    pub async fn connect_as(&self, version: &str, transport: &str, url: &str) -> Client {
        let mut client = self.open(version, url, json!({"transports": [transport]}));
        client.connected().await;
        client
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        let driver = self.driver.take().expect("only once");
        if self.is_reusable.load(Ordering::Relaxed) {
            RUNTIME.spawn(driver.retire());
        }
    }
}

async fn read(stdout: ChildStdout, routes: Routes) {
    let mut lines = BufReader::new(stdout).lines();
    while let Some(line) = lines.next_line().await.expect("lines of text") {
        let saw: Value = serde_json::from_str(&line).expect("lines of JSON");
        let client = saw["client"].as_u64().expect("a client");
        if let Some(client) = routes.lock().unwrap().get(&client) {
            // A test that is done with a client does not read on.
            let _ = client.send(saw);
        }
    }
    // Node has ended: whoever waits for it is told by the end of their channel.
    routes.lock().unwrap().clear();
}

async fn write(mut stdin: ChildStdin, mut commands: mpsc::UnboundedReceiver<String>) {
    while let Some(command) = commands.recv().await {
        if stdin.write_all(command.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// One Socket.IO client. What it sees is read in the order in which it saw it.
pub struct Client {
    id: u64,
    commands: mpsc::UnboundedSender<String>,
    seen: mpsc::UnboundedReceiver<Value>,
    /// Seen while something else was waited for.
    unread: VecDeque<Value>,
    /// Transports the engine has changed to. That may happen at any time, so it is kept apart.
    pub upgrades: Vec<Value>,
    acks: u64,
    /// Also what is [`ASIDE`].
    hears_all: bool,
}

impl Client {
    pub(super) fn command(&self, mut command: Value) {
        command["client"] = self.id.into();
        self.commands.send(format!("{command}\n")).expect("Node runs");
    }

    /// Sends an event without asking for an ack.
    pub fn emit(&self, event: &str, payload: Value) {
        self.command(json!({"op": "emit", "event": event, "args": [payload]}));
    }

    /// Sends an event without payload, asking for an ack or not.
    pub fn emit_bare(&mut self, event: &str, with_ack: bool) {
        let mut command = json!({"op": "emit", "event": event, "args": []});
        if with_ack {
            self.acks += 1;
            command["ack"] = self.acks.into();
        }
        self.command(command);
    }

    /// Sends an event asking for an ack, which [`Client::next`] will show among everything else.
    pub fn emit_for_ack(&mut self, event: &str, payload: Value) -> u64 {
        self.acks += 1;
        self.command(json!({"op": "emit", "event": event, "args": [payload], "ack": self.acks}));
        self.acks
    }

    /// The next thing seen, which must be this ack; returns its argument.
    pub async fn ack(&mut self, ack: u64) -> Value {
        let saw = self.next().await;
        assert_eq!((&saw["kind"], &saw["ack"]), (&json!("ack"), &json!(ack)), "{saw}");
        saw["args"][0].clone()
    }

    /// Sends an event and returns its ack; anything seen before that fails the test.
    pub async fn ask(&mut self, event: &str, payload: Value) -> Value {
        let ack = self.emit_for_ack(event, payload);
        self.ack(ack).await
    }

    /// Sends an event; returns its ack and what was seen before that.
    pub async fn ask_seeing(&mut self, event: &str, payload: Value) -> (Value, Vec<Value>) {
        let ack = self.emit_for_ack(event, payload);
        let mut seen = Vec::new();
        loop {
            let saw = self.next().await;
            if saw["kind"] == "ack" && saw["ack"] == ack {
                return (saw["args"][0].clone(), seen);
            }
            seen.push(saw);
        }
    }

    /// Waits for these acks, in any order; returns them in this one, and the events seen meanwhile.
    pub async fn acks_seeing(&mut self, acks: &[u64]) -> (Vec<Value>, Vec<Value>) {
        let (mut found, mut events) = (vec![None; acks.len()], Vec::new());
        while found.contains(&None) {
            let mut saw = self.next().await;
            let argument = saw["args"][0].take();
            match acks.iter().position(|ack| saw["kind"] == "ack" && saw["ack"] == *ack) {
                Some(at) => found[at] = Some(argument),
                None => events.push(argument),
            }
        }
        (found.into_iter().flatten().collect(), events)
    }

    /// Joins a room; returns the `chat` with its current state.
    pub async fn join(&mut self, location: u64) -> Value {
        let ack = self.ask("join_room", json!({"locationId": location})).await;
        assert_eq!(ack, json!(location.to_string()));
        self.event("chat").await
    }

    /// Leaves a room; what was sent before the ack fails the test.
    pub async fn leave(&mut self, location: u64) {
        let ack = self.ask("leave_room", json!({"locationId": location})).await;
        assert_eq!(ack, json!(location.to_string()));
    }

    /// The next thing seen: connect, event, ack, disconnect, …
    pub async fn next(&mut self) -> Value {
        loop {
            if let Some(saw) = self.unread.pop_front() {
                return saw;
            }
            self.see().await;
        }
    }

    async fn see(&mut self) {
        let saw = timeout(PATIENCE, self.seen.recv()).await;
        let saw = saw.expect("something to happen").expect("Node runs");
        if saw["kind"] == "upgrade" {
            self.upgrades.push(saw["name"].clone());
        } else if self.hears_all || !ASIDE.iter().any(|event| saw["event"] == *event) {
            self.unread.push_back(saw);
        }
    }

    /// From now on sees also what is [`ASIDE`].
    pub fn hearing_all(mut self) -> Self {
        self.hears_all = true;
        self
    }

    /// The next thing seen, which must be this event; returns its first argument.
    pub async fn event(&mut self, name: &str) -> Value {
        let saw = self.next().await;
        assert_eq!((&saw["kind"], &saw["event"]), (&json!("event"), &json!(name)), "{saw}");
        saw["args"][0].clone()
    }

    /// Passes over everything until this kind of thing.
    pub async fn until(&mut self, kind: &str) -> Value {
        loop {
            let saw = self.next().await;
            if saw["kind"] == kind {
                return saw;
            }
        }
    }

    /// Waits for the connection; returns the socket's id.
    pub async fn connected(&mut self) -> String {
        let saw = self.until("connect").await;
        saw["id"].as_str().expect("an id").to_owned()
    }

    /// The next things seen must be the states of a room after version `from` up to version `to`, each
    /// once and in order; returns the bodies.
    pub async fn follow(&mut self, location: u64, from: u64, to: u64) -> Vec<Value> {
        let mut chats = Vec::new();
        for version in from + 1..=to {
            let chat = self.event("chat").await;
            assert_eq!(
                (&chat["roomName"], &chat["version"]),
                (&json!(location.to_string()), &json!(version)),
                "{chat}"
            );
            chats.push(chat);
        }
        chats
    }

    /// The next things seen must be states of a room after version `from`, rising up to version `to`: what
    /// is left of them where they are too large for a socket to keep up with; returns the bodies.
    pub async fn follow_newest(&mut self, location: u64, from: u64, to: u64) -> Vec<Value> {
        let (mut chats, mut last) = (Vec::new(), from);
        while last < to {
            let chat = self.event("chat").await;
            let version = chat["version"].as_u64().expect("a version");
            assert_eq!(chat["roomName"], location.to_string());
            assert!(last < version && version <= to, "{version} after {last}");
            last = version;
            chats.push(chat);
        }
        chats
    }

    /// Waits until the engine has changed its transport; what is seen meanwhile can still be read.
    pub async fn upgraded(&mut self) -> Value {
        while self.upgrades.is_empty() {
            self.see().await;
        }
        self.upgrades[0].clone()
    }

    /// The engine's transport now; what is seen meanwhile can still be read.
    pub async fn transport(&mut self) -> Value {
        self.command(json!({"op": "transport"}));
        loop {
            if let Some(at) = self.unread.iter().position(|saw| saw["kind"] == "transport") {
                return self.unread.remove(at).expect("just found")["name"].clone();
            }
            self.see().await;
        }
    }

    /// Everything this client was sent up to now has been seen once this returns; returns what of it
    /// was not yet read. Relies on the order of one socket's events.
    pub async fn drain(&mut self) -> Vec<Value> {
        self.ask_seeing("leave_room", json!({"locationId": 9_007_199_254_740_991_u64})).await.1
    }

    /// Says goodbye.
    pub fn disconnect(&self) {
        self.command(json!({"op": "disconnect"}));
    }

    /// Drops the connection without a word.
    pub fn kill(&self) {
        self.command(json!({"op": "kill"}));
    }
}
