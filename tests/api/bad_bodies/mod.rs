//! Bad requests, one after the other on one server: each has its own right answer, none changes anything,
//! and the next request is served. Also what looks bad and is not.

mod accepted;
mod framing;
mod geometries;
mod requests;
mod syntax;

use std::{collections::HashSet, time::Duration};

use futures_util::stream;
use georoom::domain::error::Code;
use reqwest::{
    Body, Method, Response, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    on_one_database,
    support::{
        Db, TestServer, answer,
        noise::{self, IN_FLIGHT},
        point,
        problem::Problem,
    },
};

on_one_database!(every_bad_request_has_its_own_answer_and_changes_nothing);

const MIB: usize = 1024 * 1024;

/// Of all properties of a location together.
const PROPERTIES: usize = 64 * 1024;

const GOOD: &str = r#"{"type":"Point","coordinates":[13.4,52.5]}"#;

/// Longer than anything here takes on a busy machine; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A value, or something like one, among the properties of a body that is good otherwise.
fn in_properties(value: &str) -> String {
    format!(r#"{{"geometry":{GOOD},"properties":{{"a":{value}}}}}"#)
}

fn nested(open: &str, inner: &str, close: &str, depth: usize) -> String {
    format!("{}{inner}{}", open.repeat(depth), close.repeat(depth))
}

/// The same JSON with white space behind it.
fn padded(json: &str, length: usize) -> Vec<u8> {
    let mut body = json.as_bytes().to_vec();
    body.resize(length, b' ');
    body
}

/// An object of so many bytes.
fn properties_of(length: usize) -> String {
    let around = r#"{"a":""}"#.len();
    format!(r#"{{"a":"{}"}}"#, "x".repeat(length - around))
}

async fn target(server: &TestServer) -> u64 {
    let properties = json!({"name": "bus", "filler": "x".repeat(40 * 1024)});
    let (status, made) = server.post(&json!({"geometry": point(1.0, 2.0), "properties": properties})).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    made["data"]["location"]["id"].as_u64().expect("an id")
}

/// What no HTTP request can bring about in open mode: faults of the server or the database, the sockets' own, and
/// refusals of those who may not; nor one whole request alone.
const NOT_BY_A_REQUEST: [Code; 19] = [
    Code::Unauthorized,
    Code::InvalidToken,
    Code::TokenExpired,
    Code::InvalidShare,
    Code::ShareExpired,
    Code::InvalidSharePassword,
    Code::Forbidden,
    Code::TooManyMembers,
    Code::TooManyShares,
    Code::StorageUnavailable,
    Code::Internal,
    Code::Unhealthy,
    Code::RateLimited,
    Code::RequestTimeout,
    Code::MisdirectedRequest,
    Code::InvalidPayload,
    Code::UnknownEvent,
    Code::NotInRoom,
    Code::MessageTooLarge,
];

/// A bad request and its answer.
struct Row {
    name: String,
    method: Method,
    path: String,
    content_type: Option<&'static [u8]>,
    content_encoding: Option<&'static str>,
    body: Vec<u8>,
    status: u16,
    code: Code,
    pointer: Option<String>,
    /// Must be in the detail; after a `!`, must not.
    says: &'static str,
}

/// The table, for a location that exists.
struct Table {
    id: u64,
    rows: Vec<Row>,
}

impl Table {
    fn row(
        &mut self,
        name: &str,
        method: Method,
        path: &str,
        body: impl Into<Vec<u8>>,
        (status, code, pointer): (u16, Code, Option<&str>),
    ) -> &mut Row {
        let row = Row {
            name: format!("{name} ({method} {path})"),
            path: path.replace("{id}", &self.id.to_string()),
            method,
            content_type: Some(b"application/json"),
            content_encoding: None,
            body: body.into(),
            status,
            code,
            pointer: pointer.map(str::to_owned),
            says: "",
        };
        self.rows.push(row);
        self.rows.last_mut().expect("just pushed")
    }

    /// A body that is no JSON, whatever it is sent to.
    fn not_json(&mut self, name: &str, body: impl AsRef<[u8]>) {
        for (method, path) in
            [(Method::POST, "/location"), (Method::PUT, "/location"), (Method::PUT, "/location/{id}")]
        {
            self.row(name, method, path, body.as_ref(), (400, Code::InvalidJson, None));
        }
    }

    /// A body that is JSON and refused by `POST` and by `PUT` with the id in the path.
    fn body(&mut self, name: &str, body: impl AsRef<str>, code: Code, pointer: &str) {
        for (method, path) in [(Method::POST, "/location"), (Method::PUT, "/location/{id}")] {
            self.row(name, method, path, body.as_ref(), (422, code, Some(pointer)));
        }
    }

    /// A body that `PUT /location` refuses; the location's id stands in it as `$id`.
    fn put(&mut self, name: &str, body: &str, code: Code, pointer: &str) {
        let body = body.replace("$id", &self.id.to_string());
        self.row(name, Method::PUT, "/location", body, (422, code, Some(pointer)));
    }

    /// Members that are refused in all three bodies.
    fn members(&mut self, name: &str, members: &str, code: Code, pointer: &str) {
        self.body(name, format!("{{{members}}}"), code, pointer);
        self.put(name, &format!(r#"{{"id":$id,{members}}}"#), code, pointer);
    }

    /// A geometry; its faults are pointed at from the body's root.
    fn geometry(&mut self, name: &str, geometry: impl AsRef<str>, code: Code, pointer: &str) {
        let members = format!(r#""geometry":{}"#, geometry.as_ref());
        self.members(name, &members, code, &format!("/geometry{pointer}"));
    }

    /// The same for one that has coordinates.
    fn coordinates(&mut self, kind: &str, coordinates: &str, code: Code, pointer: &str) {
        let name = format!("{kind} {coordinates:.60}");
        let geometry = format!(r#"{{"type":"{kind}","coordinates":{coordinates}}}"#);
        self.geometry(&name, geometry, code, &format!("/coordinates{pointer}"));
    }

    /// What the detail of the rows since `from` must say.
    fn says(&mut self, from: usize, words: &'static str) {
        self.rows[from..].iter_mut().for_each(|row| row.says = words);
    }
}

fn table(id: u64) -> Vec<Row> {
    let mut table = Table { id, rows: Vec::new() };
    table.syntax();
    table.top_level();
    table.member_types();
    table.geometry_objects();
    table.positions();
    table.lines_and_rings();
    table.ranges();
    table.duplicates();
    table.sizes();
    table.content_types();
    table.updates();
    table.requests();
    table.rows
}

/// Does the pointer lead somewhere in what was sent, or to a member that is missing there?
fn leads_somewhere(pointer: &str, sent: &Value) -> bool {
    sent.pointer(pointer).is_some()
        || pointer
            .rsplit_once('/')
            .is_some_and(|(parent, _)| sent.pointer(parent).is_some_and(Value::is_object))
}

/// Sends the request and says what is wrong with the answer.
async fn fault(server: &TestServer, row: &Row) -> Result<(), String> {
    let url = format!("{}{}", server.api, row.path);
    let mut request = server.http.request(row.method.clone(), url).body(row.body.clone());
    if let Some(content_type) = row.content_type {
        request = request.header(CONTENT_TYPE, content_type);
    }
    if let Some(content_encoding) = row.content_encoding {
        request = request.header(CONTENT_ENCODING, content_encoding);
    }
    let problem = Problem::of(request.send().await.map_err(|e| format!("{e:?}"))?).await?;
    let expected = (row.status, row.code.as_str(), row.pointer.as_deref());
    if (problem.status.as_u16(), problem.code.as_str(), problem.pointer.as_deref()) != expected {
        return Err(format!("{problem:?} is not {expected:?}"));
    }
    let says_well = match row.says.strip_prefix('!') {
        Some(words) => !problem.detail.contains(words),
        None => problem.detail.contains(row.says),
    };
    if !says_well {
        return Err(format!("{:?}: {}", row.says, problem.detail));
    }
    match (serde_json::from_slice::<Value>(&row.body), &problem.pointer) {
        (Ok(sent), Some(pointer)) if !leads_somewhere(pointer, &sent) => {
            Err(format!("{pointer} leads nowhere"))
        }
        (Err(_), Some(pointer)) => Err(format!("{pointer} into what is not JSON")),
        _ => Ok(()),
    }
}

/// What no bad request may change: how many locations there are, and this one.
async fn state(server: &TestServer, id: u64) -> (Value, Value) {
    let (status, list) = server.get("/location?perPage=1").await;
    assert_eq!(status, StatusCode::OK, "{list}");
    let (status, location) = server.get(&format!("/location/{id}")).await;
    assert_eq!(status, StatusCode::OK, "{location}");
    (list["total"].clone(), location)
}

async fn every_bad_request_has_its_own_answer_and_changes_nothing(db: Db) {
    let server = TestServer::start(db).await;
    let id = target(&server).await;
    let before = state(&server, id).await;
    let rows = table(id);
    let mut faults = Vec::new();
    for row in &rows {
        if let Err(fault) = fault(&server, row).await {
            faults.push(format!("{}: {fault}", row.name));
        }
        if state(&server, id).await != before {
            faults.push(format!("{}: something was changed", row.name));
            break;
        }
    }
    assert!(faults.is_empty(), "{} of {} rows:\n{}", faults.len(), rows.len(), faults.join("\n"));

    let seen: HashSet<Code> = rows.iter().map(|row| row.code).collect();
    for code in Code::ALL.iter().filter(|code| !NOT_BY_A_REQUEST.contains(code)) {
        assert!(seen.contains(code), "no row has the code {}", code.as_str());
    }
    server.stop().await;
}
