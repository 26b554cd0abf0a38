//! Bad requests, one after the other on one server: each has its own right answer, none changes anything,
//! and the next request is served. Also what looks bad and is not.

mod accepted;
mod framing;
mod requests;

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
    cases::{
        POINT, Refusals,
        bodies::{self, in_properties, nested},
        geometries,
    },
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

/// Longer than anything here takes on a busy machine; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(20);

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
    /// Goes into the rows that are added next.
    says: &'static str,
}

/// The requests that take the body of a location.
const POST: (Method, &str) = (Method::POST, "/location");
const PUT: (Method, &str) = (Method::PUT, "/location");
const PUT_BY_PATH: (Method, &str) = (Method::PUT, "/location/{id}");

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

    /// A body that is JSON and refused; the location's id stands in it as `$id`.
    fn refused(&mut self, name: &str, (method, path): (Method, &str), body: &str, code: Code, pointer: &str) {
        let (body, says) = (body.replace("$id", &self.id.to_string()), self.says);
        self.row(name, method, path, body, (422, code, Some(pointer))).says = says;
    }
}

/// Each body goes to the paths that refuse it.
impl Refusals for Table {
    fn not_json(&mut self, name: &str, body: impl AsRef<[u8]>) {
        for (method, path) in [POST, PUT, PUT_BY_PATH] {
            self.row(name, method, path, body.as_ref(), (400, Code::InvalidJson, None));
        }
    }

    fn post(&mut self, name: &str, body: &str, code: Code, pointer: &str) {
        self.refused(name, POST, body, code, pointer);
    }

    fn put_by_path(&mut self, name: &str, body: &str, code: Code, pointer: &str) {
        self.refused(name, PUT_BY_PATH, body, code, pointer);
    }

    fn put(&mut self, name: &str, body: &str, code: Code, pointer: &str) {
        self.refused(name, PUT, body, code, pointer);
    }

    fn expect_detail(&mut self, words: &'static str) {
        self.says = words;
    }
}

fn table(id: u64) -> Vec<Row> {
    let mut table = Table { id, rows: Vec::new(), says: "" };
    bodies::syntax(&mut table);
    bodies::top_level(&mut table);
    bodies::member_types(&mut table);
    bodies::nothing_to_update(&mut table);
    bodies::duplicates(&mut table);
    geometries::geometry_objects(&mut table);
    geometries::positions(&mut table);
    geometries::lines_and_rings(&mut table);
    geometries::ranges(&mut table);
    geometries::too_many_positions(&mut table);
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
