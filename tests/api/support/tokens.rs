//! What callers come with: tokens as somebody signs them who has the secret, and share links.

use std::time::{Duration, Instant};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use georoom::domain::{
    id::UserId,
    time::Timestamp,
    token::{Keys, Token},
};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{
    Method, RequestBuilder, Response, StatusCode,
    header::{CONTENT_TYPE, HeaderMap},
};
use serde_json::{Value, json};

use super::{
    TestServer, answer,
    clients::{Client, Clients},
};

pub const SECRET: &str = "hunter2-hunter2-hunter2-hunter2-";

/// A public key of which nobody has the other half.
pub const ED25519: &str = "\
-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAZlwC2KiNY3C88tsUyK55ZhUh2AElffa4Xs14Gk7tebM=
-----END PUBLIC KEY-----
";

/// The settings of a server that is not open.
pub const LOCKED: &[(&str, &str)] = &[KEY];
/// The one that makes it so.
pub const KEY: (&str, &str) = ("JWT_SECRET", SECRET);

/// Between packets of one answer.
const SEPARATOR: char = '\u{1e}';

const HOUR_MS: i64 = 3_600_000;

/// What somebody shows.
#[derive(Clone, Debug)]
pub enum Pass {
    Nothing,
    Token(String),
    Share(String, Option<String>),
}

/// A token of a user, valid for an hour.
pub fn token(id: u64) -> String {
    mint(id, None, false)
}

pub fn mint(id: u64, name: Option<&str>, is_admin: bool) -> String {
    mint_for(HOUR_MS, id, name, is_admin)
}

/// One whose `exp` is so many milliseconds from now, rounded down to the second.
pub fn mint_for(ms: i64, id: u64, name: Option<&str>, is_admin: bool) -> String {
    let mut keys = Keys::default();
    keys.add_secrets(SECRET).expect("a secret");
    let user = UserId::new(id).expect("an id");
    let expires_at = Timestamp::from_millis(Timestamp::now().as_millis() + ms);
    let token = Token { user, name: name.map(str::to_owned), is_admin, expires_at };
    keys.mint(&token).expect("a token")
}

/// Seconds since 1970, so many from now.
pub fn in_seconds(seconds: i64) -> i64 {
    Timestamp::now().as_millis() / 1_000 + seconds
}

/// A time as a body has it, so many milliseconds from now.
pub fn in_ms(ms: i64) -> String {
    Timestamp::from_millis(Timestamp::now().as_millis() + ms).to_string()
}

/// Any header and any claims as they are, signed with HS256 by a secret.
pub fn signed(header: &impl ToString, claims: &impl ToString, secret: &[u8]) -> String {
    let message = format!("{}.{}", encoded(header), encoded(claims));
    // The library refuses an empty key. One zero byte signs the same, because HMAC fills keys up with zeros (RFC 2104 §2).
    let secret = if secret.is_empty() { b"\0" } else { secret };
    let key = EncodingKey::from_secret(secret).expect("a key");
    let signature = crypto::sign(message.as_bytes(), &key, Algorithm::HS256).expect("a signature");
    format!("{message}.{signature}")
}

/// One part of a token.
pub fn encoded(part: &impl ToString) -> String {
    URL_SAFE_NO_PAD.encode(part.to_string())
}

/// Connects to the gateway by hand over long-polling, with anything as query, headers and the text of
/// `auth`; an error is the code of the refusal.
pub async fn knock(
    server: &TestServer,
    query: &[(&str, &str)],
    headers: &HeaderMap,
    auth: &str,
) -> Result<(), String> {
    let mut pairs = form_urlencoded::Serializer::new(String::new());
    pairs.extend_pairs([("EIO", "4"), ("transport", "polling")]).extend_pairs(query);
    let url = format!("{}/socket.io/?{}", server.gateway, pairs.finish());
    let read = async |request: RequestBuilder| {
        let answer = request.headers(headers.clone()).send().await.expect("an answer");
        let status = answer.status();
        let text = answer.text().await.expect("text");
        if status == StatusCode::OK { Ok(text) } else { Err(status.to_string()) }
    };
    let open = read(server.http.get(&url)).await?;
    let open = open.split(SEPARATOR).next().and_then(|packet| packet.strip_prefix('0')).expect("open");
    let open: Value = serde_json::from_str(open).expect("JSON");
    let session = open["sid"].as_str().expect("a sid");
    let url = format!("{}/socket.io/?EIO=4&transport=polling&sid={session}", server.gateway);
    read(server.http.post(&url).body(format!("40{auth}"))).await?;
    loop {
        let said = read(server.http.get(&url)).await?;
        // A ping may come first.
        let Some(said) = said.split(SEPARATOR).find(|packet| *packet != "2") else { continue };
        if said.starts_with("40{") {
            return Ok(());
        }
        let refusal = said.strip_prefix("44").map(|body| serde_json::from_str::<Value>(body).expect("JSON"));
        let code = refusal.map(|body| body["message"].as_str().expect("a code").to_owned());
        return Err(code.unwrap_or_else(|| said.to_owned()));
    }
}

impl Pass {
    pub fn user(id: u64) -> Self {
        Self::Token(token(id))
    }

    pub fn admin(id: u64) -> Self {
        Self::Token(mint(id, None, true))
    }

    /// As headers.
    pub fn on(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::Nothing => request,
            Self::Token(token) => request.bearer_auth(token),
            Self::Share(share, None) => request.header("X-Share-Token", share),
            Self::Share(share, Some(password)) => {
                let password = utf8_percent_encode(password, NON_ALPHANUMERIC).to_string();
                request.header("X-Share-Token", share).header("X-Share-Password", password)
            }
        }
    }

    /// Sends a request; a body goes as JSON.
    pub async fn send(
        &self,
        server: &TestServer,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Response {
        let mut request = self.on(server.http.request(method, format!("{}{path}", server.api)));
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
        }
        request.send().await.expect("an answer")
    }

    pub async fn get(&self, server: &TestServer, path: &str) -> (StatusCode, Value) {
        answer(self.send(server, Method::GET, path, None).await).await
    }

    /// Sends what must succeed; returns the body.
    #[track_caller]
    pub fn must<'a>(
        &'a self,
        server: &'a TestServer,
        method: Method,
        path: &'a str,
        body: Option<Value>,
    ) -> impl Future<Output = Value> + 'a {
        let at = std::panic::Location::caller();
        async move {
            let (status, answer) = answer(self.send(server, method.clone(), path, body.as_ref()).await).await;
            assert!(status.is_success(), "{at}: {method} {path}: {status} {answer}");
            answer
        }
    }

    /// Makes a location; returns its id.
    pub async fn create(&self, server: &TestServer) -> u64 {
        let body = json!({"geometry": super::point(0.5, 0.5)});
        let made = self.must(server, Method::POST, "/location", Some(body)).await;
        made["data"]["location"]["id"].as_u64().expect("an id")
    }

    /// Moves a location; returns the Feature of the answer.
    pub async fn mv(&self, server: &TestServer, id: u64) -> Value {
        let body = json!({"id": id, "geometry": super::point(1.5, 1.5)});
        let moved = self.must(server, Method::PUT, "/location", Some(body)).await;
        moved["data"]["updatedLocationResult"].clone()
    }

    /// Makes somebody a member.
    pub async fn grant(&self, server: &TestServer, id: u64, member: u64, role: &str) {
        let path = format!("/location/{id}/members/{member}");
        self.must(server, Method::PUT, &path, Some(json!({"role": role}))).await;
    }

    /// Makes a share link; returns it as its answer has it.
    pub async fn share(&self, server: &TestServer, id: u64, mut body: Value) -> Value {
        if body["expiresAt"].is_null() {
            body["expiresAt"] = in_ms(HOUR_MS).into();
        }
        let path = format!("/location/{id}/shares");
        self.must(server, Method::POST, &path, Some(body)).await["data"]["share"].clone()
    }

    /// Makes a share link; returns what its guests show.
    pub async fn guest(&self, server: &TestServer, id: u64) -> Self {
        Self::of(&self.share(server, id, json!({})).await)
    }

    /// What a guest of this share shows.
    pub fn of(share: &Value) -> Self {
        Self::Share(share["token"].as_str().expect("a token").to_owned(), None)
    }

    /// As the handshake's `auth`.
    pub fn auth(&self) -> Value {
        match self {
            Self::Nothing => json!({}),
            Self::Token(token) => json!({"token": token}),
            Self::Share(share, None) => json!({"share": share}),
            Self::Share(share, Some(password)) => json!({"share": share, "password": password}),
        }
    }

    /// A stock client's options; clients 2.x can show something only in the query.
    pub fn opts(&self, (version, transport): (&str, &str)) -> Value {
        let place = if version == "2" { "query" } else { "auth" };
        json!({"transports": [transport], place: self.auth()})
    }

    /// A client that tries to connect.
    pub fn open(&self, clients: &Clients, kind: (&str, &str), url: &str) -> Client {
        clients.open(kind.0, url, self.opts(kind))
    }

    /// A connected Socket.IO client of some generation over one transport.
    pub async fn connect_as(&self, clients: &Clients, kind: (&str, &str), url: &str) -> Client {
        let mut client = self.open(clients, kind, url);
        let saw = client.next().await;
        assert_eq!(saw["kind"], "connect", "{kind:?} {self:?}: {saw}");
        client
    }

    /// A connected Socket.IO 4 client over WebSocket.
    pub async fn connect(&self, clients: &Clients, url: &str) -> Client {
        self.connect_as(clients, ("4", "websocket"), url).await
    }
}

/// Why a client was not let in: the code, as its generation is told it.
pub async fn refusal(client: &mut Client) -> String {
    let saw = client.next().await;
    let code = match saw["kind"].as_str() {
        Some("connect_error") => &saw["message"],
        // Clients 2.x have it alone, the others beside a sentence.
        Some("error") => &saw["value"],
        _ => panic!("not refused: {saw}"),
    };
    code.as_str().unwrap_or_else(|| panic!("no code: {saw}")).to_owned()
}

/// The code of a failure as an ack or an exception.
#[track_caller]
pub fn code(failure: &Value) -> &str {
    assert_eq!(failure["status"], "error", "{failure}");
    failure["code"].as_str().expect("a code")
}

/// A time in which something can be made ready and go on for a while, on this machine as busy as it is: `prepare` makes
/// it ready once and is timed.
pub async fn time_for<T>(prepare: impl Future<Output = T>) -> Duration {
    let began = Instant::now();
    prepare.await;
    Duration::from_secs(4).max(3 * began.elapsed())
}
