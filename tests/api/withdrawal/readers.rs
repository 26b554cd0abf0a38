//! Readers of every kind, and what each of them saw of a room until its right ended.

use super::*;

/// Somebody who is connected.
pub(super) enum Reader {
    WebSocket(WebSocket),
    Polling(Polling),
    Stock(Client),
}

impl Reader {
    pub(super) async fn websocket(gateway: &str, by: &Pass) -> Self {
        let auth = by.auth().to_string();
        Self::WebSocket(WebSocket::connect_with(gateway, "/socket.io/", false, &auth).await)
    }

    pub(super) async fn polling(gateway: &str, by: &Pass) -> Self {
        Self::Polling(Polling::connect_with(gateway, "/socket.io/", &by.auth().to_string()).await)
    }

    pub(super) async fn stock(clients: &Clients, kind: (&str, &str), gateway: &str, by: &Pass) -> Self {
        let mut client = by.open(clients, kind, gateway);
        client.connected().await;
        Self::Stock(client)
    }

    /// One of every kind of them.
    pub(super) async fn all(clients: &Clients, gateway: &str, by: &Pass) -> Vec<Self> {
        let mut all = vec![Self::websocket(gateway, by).await, Self::polling(gateway, by).await];
        for kind in KINDS {
            all.push(Self::stock(clients, kind, gateway, by).await);
        }
        all
    }

    pub(super) async fn next(&mut self) -> Seen {
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

    pub(super) async fn emit(&mut self, event: &str, payload: &Value) {
        match self {
            Self::WebSocket(client) => drop(client.emit(event, payload).await),
            Self::Polling(client) => client.send(&format!(r#"420["{event}",{payload}]"#)).await,
            Self::Stock(client) => drop(client.emit_for_ack(event, payload.clone())),
        }
    }

    /// Sends an event; returns its ack and what was seen before that. There is no other ack to come.
    pub(super) async fn ask(&mut self, event: &str, payload: Value) -> (Value, Vec<Seen>) {
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
    pub(super) async fn join(&mut self, id: u64) -> u64 {
        let (ack, before) = self.ask("join_room", json!({"locationId": id})).await;
        assert_eq!(ack, json!(id.to_string()));
        assert!(before.is_empty(), "{before:?}");
        let Seen::Position(Position { room, version, .. }) = self.next().await else { panic!("no state") };
        assert_eq!(room, id);
        version
    }

    /// Everything it was sent up to now.
    pub(super) async fn drain(&mut self) -> Vec<Seen> {
        self.ask("leave_room", json!({"locationId": NOWHERE})).await.1
    }

    /// Goes on reading until it is over; returns what it was sent. Whoever has not read what was sent before a right
    /// ended may be cut off, which is then the last thing seen.
    pub(super) async fn linger_or_end(&mut self, mut over: watch::Receiver<Option<u64>>) -> Vec<Seen> {
        let mut seen = Vec::new();
        while over.borrow().is_none() {
            if let Self::Polling(_) = self {
                // A poll must not be broken off.
                seen.extend(self.drain().await);
                let _ = timeout(Duration::from_millis(100), over.changed()).await;
            } else if let Ok(next) = timeout(Duration::from_millis(100), self.next()).await {
                // Says nothing: an answer would bring a question along.
                seen.push(next);
                if matches!(seen.last(), Some(Seen::End)) {
                    return seen;
                }
            }
        }
        match self {
            Self::WebSocket(client) => client.try_emit("leave_room", &json!({"locationId": NOWHERE})).await,
            _ => self.emit("leave_room", &json!({"locationId": NOWHERE})).await,
        }
        loop {
            match self.next().await {
                Seen::Ack(..) => return seen,
                Seen::End => {
                    seen.push(Seen::End);
                    return seen;
                }
                other => seen.push(other),
            }
        }
    }

    /// The same of somebody who stays connected.
    pub(super) async fn linger(&mut self, over: watch::Receiver<Option<u64>>) -> Vec<Seen> {
        let seen = self.linger_or_end(over).await;
        assert!(!matches!(seen.last(), Some(Seen::End)), "ended after {seen:?}");
        seen
    }

    /// Tries to join; returns the code of the refusal.
    pub(super) async fn refused(&mut self, id: u64) -> String {
        let (ack, before) = self.ask("join_room", json!({"locationId": id})).await;
        assert!(before.is_empty(), "{before:?}");
        ack["code"].as_str().unwrap_or_else(|| panic!("let in: {ack}")).to_owned()
    }

    pub(super) async fn gone(&mut self) {
        match self.next().await {
            Seen::End => {}
            other => panic!("{other:?}"),
        }
    }
}

/// What somebody saw of the one room they were in.
pub(super) struct Story {
    pub(super) reader: Reader,
    pub(super) versions: Vec<u64>,
    /// Why the room was closed, and when.
    pub(super) closed: Option<(Value, Instant)>,
    /// Seen after that.
    pub(super) after: Vec<Seen>,
}

impl Story {
    /// Reads until there is a version after `last`, once that is known; whoever has lost the room, until then.
    pub(super) async fn read(mut reader: Reader, id: u64, last: watch::Receiver<Option<u64>>) -> Self {
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
    pub(super) fn check_dense(&self) {
        for pair in self.versions.windows(2) {
            assert_eq!(pair[1], pair[0] + 1, "of {:?}", self.versions);
        }
    }

    /// Told in time, still connected, and sent nothing more up to now.
    pub(super) async fn check_closed(mut self, id: u64, reason: &str, ended: Instant) -> Reader {
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
pub(super) struct Audience {
    pub(super) last: watch::Sender<Option<u64>>,
    pub(super) stories: Vec<(usize, JoinHandle<Story>)>,
}

impl Audience {
    pub(super) fn new() -> Self {
        Self { last: watch::Sender::new(None), stories: Vec::new() }
    }

    /// Readers of some group.
    pub(super) fn add(&mut self, group: usize, readers: impl IntoIterator<Item = Reader>, id: u64) {
        for reader in readers {
            self.stories.push((group, tokio::spawn(Story::read(reader, id, self.last.subscribe()))));
        }
    }

    /// What each saw, once they have been told what is the last.
    pub(super) async fn stories(self) -> Vec<(usize, Story)> {
        let mut stories = Vec::new();
        for (group, story) in self.stories {
            let story = timeout(PATIENCE, story).await;
            let story = story.unwrap_or_else(|_| panic!("group {group} was neither told nor sent all"));
            stories.push((group, story.expect("somebody who saw nothing wrong")));
        }
        stories
    }
}
