//! A Socket.IO 4 client by hand over long-polling: what goes over the wire, byte for byte. JavaScript
//! would lose the sign of a zero.

use std::{collections::VecDeque, time::Duration};

use reqwest::StatusCode;
use serde_json::Value;
use tokio::time::timeout;

use super::websocket::is_aside;

/// Longer than anything here takes on a busy machine; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// Packets of one answer are separated by this.
const SEPARATOR: char = '\u{1e}';

/// Begins a session of either version with a first poll; returns its id.
pub async fn open_session(poll: reqwest::RequestBuilder) -> String {
    let opened = poll.send().await.expect("an answer").text().await.expect("text");
    let (_, after) = opened.split_once(r#""sid":""#).expect("a session");
    after.split('"').next().expect("an id").to_owned()
}

pub struct Polling {
    http: reqwest::Client,
    url: String,
    /// Its key.
    pub session: String,
    packets: VecDeque<String>,
}

impl Polling {
    /// Connected to the namespace `/`.
    pub async fn connect(gateway: &str) -> Self {
        Self::connect_to(gateway, "/socket.io/").await
    }

    pub async fn connect_to(url: &str, path: &str) -> Self {
        Self::connect_with(url, path, "").await
    }

    /// Who shows something in the handshake: the text of a JSON object.
    pub async fn connect_with(url: &str, path: &str, auth: &str) -> Self {
        let http = reqwest::Client::new();
        let url = format!("{url}{path}?EIO=4&transport=polling");
        let mut polling = Self { http, url, session: String::new(), packets: VecDeque::new() };
        let open = polling.next().await;
        let open: Value = serde_json::from_str(open.strip_prefix('0').expect("open")).expect("JSON");
        polling.session = open["sid"].as_str().expect("a sid").to_owned();
        polling.url += &format!("&sid={}", polling.session);
        polling.send(&format!("40{auth}")).await;
        assert!(polling.next().await.starts_with("40{"));
        polling
    }

    /// Sends packets, all in one request.
    pub async fn send_all(&self, packets: &[String]) {
        self.send(&packets.join(&SEPARATOR.to_string())).await;
    }

    pub async fn send(&self, packet: &str) {
        let answer = self.http.post(&self.url).body(packet.to_owned()).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
    }

    /// One poll, whatever the answer.
    pub async fn poll(&self) -> (StatusCode, String) {
        let answer = timeout(PATIENCE, self.http.get(&self.url).send()).await.expect("an answer");
        let answer = answer.expect("an answer");
        (answer.status(), answer.text().await.expect("text"))
    }

    /// The next packet that is no ping and not `ASIDE`.
    pub async fn next(&mut self) -> String {
        timeout(PATIENCE, self.read()).await.expect("a packet")
    }

    async fn read(&mut self) -> String {
        loop {
            match self.packets.pop_front() {
                Some(ping) if ping == "2" => self.send("3").await,
                Some(aside) if is_aside(&aside) => {}
                Some(packet) => return packet,
                None => {
                    let answer = self.http.get(&self.url).send().await.expect("an answer");
                    let text = answer.text().await.expect("text");
                    self.packets.extend(text.split(SEPARATOR).map(str::to_owned));
                }
            }
        }
    }

    /// Sends an event with one argument and returns the text of its ack's.
    pub async fn ask(&mut self, event: &str, payload: &Value) -> String {
        self.send(&format!(r#"420["{event}",{payload}]"#)).await;
        let ack = self.next().await;
        let arguments = ack.strip_prefix("430[").and_then(|rest| rest.strip_suffix(']'));
        arguments.unwrap_or_else(|| panic!("no ack: {ack}")).to_owned()
    }

    /// Has the last answer more packets?
    pub fn has_unread(&self) -> bool {
        !self.packets.is_empty()
    }

    /// The next packet, which must be a `chat`; returns the text of its body.
    pub async fn chat(&mut self) -> String {
        let event = self.next().await;
        let body = event.strip_prefix(r#"42["chat","#).and_then(|rest| rest.strip_suffix(']'));
        body.unwrap_or_else(|| panic!("no chat: {event}")).to_owned()
    }
}
