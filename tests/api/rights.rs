//! Who may do what, by both doors: the contract's paragraph on rights as a table, each cell of it tried.

use georoom::domain::error::Code;
use reqwest::{Method, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    on_both_databases, on_one_database,
    support::{
        Db, TestServer, answer,
        clients::{Client, Clients, KINDS},
        point,
        problem::Problem,
        tokens::{LOCKED, Pass, code, in_ms, refusal},
    },
};

on_both_databases!(
    each_request_of_each_caller_is_answered_as_the_table_says,
    each_event_of_each_caller_is_answered_as_the_table_says,
    a_right_that_ends_takes_its_sockets_out_and_is_gone_for_requests,
    a_guest_sees_nothing_from_before_the_share_link,
    a_right_gained_or_changed_counts_for_sockets_that_are_connected,
);

on_one_database!(a_path_that_is_not_there_or_takes_no_such_method_asks_nobody_who_they_are);

const OWNER: u64 = 10;
const EDITOR: u64 = 11;
const VIEWER: u64 = 12;
const STRANGER: u64 = 13;
const ADMIN: u64 = 14;

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum To {
    /// It is done, or shown.
    Done,
    /// A list is shown, and the location is not in it.
    Hidden,
    /// 403: seen but not allowed.
    Denied,
    /// 404: as if the location were not there.
    Gone,
    /// 401: says who you are.
    Login,
}

use To::{Denied, Done, Gone, Hidden, Login};

/// The columns of the tables.
const CALLERS: [&str; 8] =
    ["nobody", "stranger", "guest of another", "guest", "viewer", "editor", "owner", "admin"];

/// `{id}`: the location; `{self}`: whoever asks; `{other}`: another viewer; `{new}`: no member yet;
/// `{share}`: the guest's share link.
#[rustfmt::skip]
const REQUESTS: [(&str, u16, [To; 8]); 20] = [
    //                                            nobody stranger of another guest  viewer  editor  owner admin
    ("GET /location/{id}",                   200, [Login, Gone,   Gone,   Done,   Done,   Done,   Done, Done]),
    ("HEAD /location/{id}",                  200, [Login, Gone,   Gone,   Done,   Done,   Done,   Done, Done]),
    ("GET /location/{id}/history",           200, [Login, Gone,   Gone,   Done,   Done,   Done,   Done, Done]),
    ("HEAD /location/{id}/history",          200, [Login, Gone,   Gone,   Done,   Done,   Done,   Done, Done]),
    ("GET /location",                        200, [Login, Hidden, Denied, Denied, Done,   Done,   Done, Done]),
    ("GET /location?bbox=0,0,2,2",           200, [Login, Hidden, Denied, Denied, Done,   Done,   Done, Done]),
    ("GET /location?near=1,1&radius=500000", 200, [Login, Hidden, Denied, Denied, Done,   Done,   Done, Done]),
    ("POST /location",                       201, [Login, Done,   Denied, Denied, Done,   Done,   Done, Done]),
    ("PUT /location",                        201, [Login, Gone,   Gone,   Denied, Denied, Done,   Done, Done]),
    ("PUT /location/{id}",                   201, [Login, Gone,   Gone,   Denied, Denied, Done,   Done, Done]),
    ("DELETE /location/{id}",                204, [Login, Gone,   Gone,   Denied, Denied, Denied, Done, Done]),
    ("GET /location/{id}/members",           200, [Login, Gone,   Gone,   Denied, Done,   Done,   Done, Done]),
    ("PUT /location/{id}/members/{new}",     200, [Login, Gone,   Gone,   Denied, Denied, Denied, Done, Done]),
    ("PUT /location/{id}/members/{self}",    200, [Login, Gone,   Gone,   Denied, Denied, Denied, Done, Done]),
    ("DELETE /location/{id}/members/{other}", 204, [Login, Gone,  Gone,   Denied, Denied, Denied, Done, Done]),
    // The owner and an admin are no members.
    ("DELETE /location/{id}/members/{self}", 204, [Login, Gone,   Gone,   Denied, Done,   Done,   Gone, Gone]),
    ("GET /location/{id}/shares",            200, [Login, Gone,   Gone,   Denied, Denied, Denied, Done, Done]),
    ("HEAD /location/{id}/shares",           200, [Login, Gone,   Gone,   Denied, Denied, Denied, Done, Done]),
    ("POST /location/{id}/shares",           201, [Login, Gone,   Gone,   Denied, Denied, Denied, Done, Done]),
    ("DELETE /location/{id}/shares/{share}", 204, [Login, Gone,   Gone,   Denied, Denied, Denied, Done, Done]),
];

/// A location, and somebody of each kind.
struct Stage {
    id: u64,
    share: u64,
    passes: [Pass; 8],
}

impl Stage {
    async fn set(server: &TestServer) -> Self {
        let owner = Pass::user(OWNER);
        let (id, another) = (owner.create(server).await, owner.create(server).await);
        owner.grant(server, id, EDITOR, "editor").await;
        for viewer in [VIEWER, VIEWER + 100] {
            owner.grant(server, id, viewer, "viewer").await;
        }
        let share = owner.share(server, id, json!({})).await;
        let passes = [
            Pass::Nothing,
            Pass::user(STRANGER),
            owner.guest(server, another).await,
            Pass::of(&share),
            Pass::user(VIEWER),
            Pass::user(EDITOR),
            owner,
            Pass::admin(ADMIN),
        ];
        Self { id, share: share["id"].as_u64().expect("an id"), passes }
    }

    /// Sends a request of the table.
    async fn send(&self, server: &TestServer, request: &str, id: u64, caller: usize) -> Response {
        // A guest and nobody have no id; that of user 1 is what a caller in open mode has.
        let own = [1, STRANGER, 1, 1, VIEWER, EDITOR, OWNER, ADMIN][caller];
        let (method, path) = request.split_once(' ').expect("a method");
        let path = path
            .replace("{id}", &id.to_string())
            .replace("{self}", &own.to_string())
            .replace("{other}", &(VIEWER + 100).to_string())
            .replace("{new}", "99")
            .replace("{share}", &self.share.to_string());
        let method: Method = method.parse().expect("a method");
        let body = match (&method, path.rsplit('/').next().expect("a path")) {
            (&Method::PUT, "location") => Some(json!({"id": id, "properties": {"by": caller}})),
            (&Method::PUT, _) if path.contains("/members/") => Some(json!({"role": "viewer"})),
            (&Method::PUT, _) => Some(json!({"geometry": point(1.5, 1.5)})),
            (&Method::POST, "location") => Some(json!({"geometry": point(1.0, 1.0)})),
            (&Method::POST, "shares") => Some(json!({"expiresAt": in_ms(60_000)})),
            _ => None,
        };
        self.passes[caller].send(server, method, &path, body.as_ref()).await
    }

    /// All there is to know of the location, and how many there are.
    async fn state(&self, server: &TestServer) -> [Value; 4] {
        let admin = &self.passes[7];
        let get = async |path: String| admin.get(server, &path).await.1;
        let mut shares = get(format!("/location/{}/shares", self.id)).await;
        for share in shares["shares"].as_array_mut().expect("shares") {
            for used in ["uses", "lastUsedAt"] {
                share.as_object_mut().expect("a share").remove(used);
            }
        }
        [
            get(format!("/location/{}", self.id)).await,
            get(format!("/location/{}/members", self.id)).await,
            shares,
            get("/location?perPage=1".to_owned()).await["total"].clone(),
        ]
    }
}

async fn each_request_of_each_caller_is_answered_as_the_table_says(db: Db) {
    let server = TestServer::start_with(db, LOCKED).await;
    let mut stage = Stage::set(&server).await;
    // Nothing may change until somebody is allowed to.
    let mut before = stage.state(&server).await;
    for (request, status, row) in REQUESTS {
        for (caller, (name, to)) in CALLERS.iter().zip(row).enumerate() {
            let about = format!("{request} of {name}");
            // The owner as a member of what is theirs: not a question of rights.
            if request.contains("PUT") && request.contains("{self}") && *name == "owner" {
                let refused = Problem::of(stage.send(&server, request, stage.id, caller).await).await;
                Problem::check(refused, StatusCode::UNPROCESSABLE_ENTITY, Code::InvalidMember, &about);
                continue;
            }
            let response = stage.send(&server, request, stage.id, caller).await;
            if matches!(to, Done | Hidden) {
                assert_eq!(response.status().as_u16(), status, "{about}");
                if request.starts_with("GET /location?") || request == "GET /location" {
                    let list = answer(response).await.1;
                    let ids =
                        list["features"].as_array().expect("a list").iter().map(|one| one["id"].clone());
                    assert_eq!(ids.collect::<Vec<_>>().contains(&stage.id.into()), to == Done, "{about}");
                }
                if !request.starts_with("GET") && !request.starts_with("HEAD") {
                    let after = stage.state(&server).await;
                    assert_ne!(after, before, "{about} did nothing");
                    stage = Stage::set(&server).await;
                    before = stage.state(&server).await;
                }
                continue;
            }
            let (status, code) = match to {
                Login => (StatusCode::UNAUTHORIZED, Code::Unauthorized),
                Gone => (StatusCode::NOT_FOUND, Code::NotFound),
                _ => (StatusCode::FORBIDDEN, Code::Forbidden),
            };
            let challenge = response.headers().get(header::WWW_AUTHENTICATE);
            assert_eq!(challenge.is_some_and(|value| value == "Bearer"), to == Login, "{about}");
            if request.starts_with("HEAD") {
                assert_eq!(response.status(), status, "{about}");
                assert_eq!(response.text().await.expect("a body"), "", "{about}");
            } else {
                let refused = Problem::check(Problem::of(response).await, status, code, &about);
                // Whether it is there cannot be told.
                if ["stranger", "guest of another"].contains(name) && to == Gone {
                    let unknown = stage.id + 1_000_000;
                    let absent = Problem::of(stage.send(&server, request, unknown, caller).await).await;
                    let absent = Problem::check(absent, status, code, &about);
                    let detail = absent.detail.replace(&unknown.to_string(), &stage.id.to_string());
                    assert_eq!(detail, refused.detail, "{about}");
                }
            }
            assert_eq!(stage.state(&server).await, before, "{about} was refused and did something");
        }
    }
    server.stop().await;
}

async fn a_path_that_is_not_there_or_takes_no_such_method_asks_nobody_who_they_are(db: Db) {
    let server = TestServer::start_with(db, LOCKED).await;
    let id = Pass::user(OWNER).create(&server).await;
    let passes = [
        Pass::Nothing,
        Pass::Token("nonsense".to_owned()),
        Pass::Share("nonsense".to_owned(), None),
        Pass::user(STRANGER),
    ];
    for pass in &passes {
        for path in [
            "/".to_owned(),
            "/locations".to_owned(),
            format!("/location/{id}/member"),
            format!("/location/{id}/members/1/role"),
            format!("/location/{id}/shares/1/token"),
            format!("/location/{id}/history/1"),
        ] {
            for method in [Method::GET, Method::PUT, Method::POST, Method::DELETE] {
                let about = format!("{method} {path} {pass:?}");
                let answer = Problem::of(pass.send(&server, method, &path, None).await).await;
                Problem::check(answer, StatusCode::NOT_FOUND, Code::NotFound, &about);
            }
        }
        for (method, path, allow) in [
            (Method::DELETE, "/location".to_owned(), "GET, HEAD, POST, PUT, OPTIONS"),
            (Method::POST, format!("/location/{id}"), "GET, HEAD, PUT, DELETE, OPTIONS"),
            (Method::PUT, format!("/location/{id}/history"), "GET, HEAD, OPTIONS"),
            (Method::POST, format!("/location/{id}/members"), "GET, HEAD, OPTIONS"),
            (Method::GET, format!("/location/{id}/members/1"), "PUT, DELETE, OPTIONS"),
            (Method::PUT, format!("/location/{id}/shares"), "GET, HEAD, POST, OPTIONS"),
            (Method::GET, format!("/location/{id}/shares/1"), "DELETE, OPTIONS"),
        ] {
            let about = format!("{method} {path} {pass:?}");
            let response = pass.send(&server, method, &path, None).await;
            assert_eq!(response.headers()[header::ALLOW], allow, "{about}");
            let answer = Problem::of(response).await;
            Problem::check(answer, StatusCode::METHOD_NOT_ALLOWED, Code::MethodNotAllowed, &about);
        }
    }
    // Who watches over the server has no token.
    for path in ["/healthz", "/readyz"] {
        assert_eq!(server.send(Method::GET, path, None).await.status(), StatusCode::OK, "{path}");
    }
    server.stop().await;
}

/// The columns are those of [`CALLERS`] that can connect: all but nobody. Empty: it is done, or comes.
#[rustfmt::skip]
const EVENTS: [(&str, [&str; 7]); 8] = [
    //                             stranger       of another     guest          viewer editor owner admin
    ("chat, not joined",          ["not_in_room", "not_in_room", "not_in_room", "not_in_room", "not_in_room", "not_in_room", "not_in_room"]),
    ("join_room",                 ["not_found",   "not_found",   "",            "", "", "", ""]),
    ("join_room, since",          ["not_found",   "not_found",   "",            "", "", "", ""]),
    ("chat, joined",              ["not_in_room", "not_in_room", "forbidden",   "", "", "", ""]),
    ("chat of others",            ["-",           "-",           "-",           "", "", "", ""]),
    ("position",                  ["-",           "-",           "",            "", "", "", ""]),
    ("room_closed, at DELETE",    ["-",           "-",           "",            "", "", "", ""]),
    // Of what is not there, too: it says nothing.
    ("leave_room",                ["",            "",            "",            "", "", "", ""]),
];

fn cell(event: &str, caller: usize) -> &'static str {
    EVENTS.iter().find(|(name, _)| *name == event).expect("a row").1[caller]
}

async fn each_event_of_each_caller_is_answered_as_the_table_says(db: Db) {
    let server = TestServer::start_with(db, LOCKED).await;
    let clients = Clients::start();
    for kind in KINDS {
        let stage = Stage::set(&server).await;
        let (id, room) = (stage.id, stage.id.to_string());
        let mut nobody = stage.passes[0].open(&clients, kind, &server.gateway);
        assert_eq!(refusal(&mut nobody).await, "unauthorized", "{kind:?}");
        let mut all = Vec::new();
        for (pass, name) in stage.passes.iter().zip(CALLERS).skip(1) {
            all.push((pass.connect_as(&clients, kind, &server.gateway).await, name));
        }
        let hello = json!({"message": "hello", "roomName": room});
        for (n, (client, name)) in all.iter_mut().enumerate() {
            let about = format!("{kind:?} {name}");
            let ack = client.ask("chat", hello.clone()).await;
            assert_eq!(code(&ack), cell("chat, not joined", n), "{about}");
            for payload in [json!({"locationId": id}), json!({"locationId": room, "since": null})] {
                let ack = client.ask("join_room", payload).await;
                match cell("join_room", n) {
                    "" => {
                        assert_eq!(ack, json!(room), "{about}");
                        assert_eq!(client.event("chat").await["version"], 1, "{about}");
                    }
                    refused => assert_eq!(code(&ack), refused, "{about}"),
                }
            }
            for since in [0, 1] {
                let ack = client.ask("join_room", json!({"locationId": id, "since": since})).await;
                match cell("join_room, since", n) {
                    "" => {
                        let recovered = json!({"roomName": room, "version": 1, "recovered": true});
                        assert_eq!(ack, recovered, "{about}");
                        client.follow(id, since, 1).await;
                    }
                    refused => assert_eq!(code(&ack), refused, "{about}"),
                }
            }
        }

        let moved = stage.passes[6].mv(&server, id).await;
        for (n, (client, name)) in all.iter_mut().enumerate() {
            if cell("position", n).is_empty() {
                assert_eq!(
                    client.event("chat").await,
                    json!({"userId": OWNER, "message": moved, "roomName": room, "version": 2}),
                    "{kind:?} {name}"
                );
            }
        }
        // Each speaks; who may hear it does, as of the user their token names.
        for sender in 0..all.len() {
            let (client, name) = &mut all[sender];
            let (ack, seen) = client.ask_seeing("chat", hello.clone()).await;
            let refused = cell("chat, joined", sender);
            if !refused.is_empty() {
                assert_eq!(code(&ack), refused, "{kind:?} {name}");
                assert_eq!(seen, Vec::<Value>::new(), "{kind:?} {name}");
                client.emit("chat", hello.clone());
                assert_eq!(client.event("exception").await, ack, "{kind:?} {name}");
                continue;
            }
            let user = [0, 0, 0, VIEWER, EDITOR, OWNER, ADMIN][sender];
            let relayed = json!({"userId": user, "message": "hello", "roomName": room});
            assert_eq!(ack, relayed, "{kind:?} {name}");
            for (n, (client, name)) in all.iter_mut().enumerate() {
                if !cell("chat of others", n).is_empty() || (n == sender && !seen.is_empty()) {
                    continue;
                }
                assert_eq!(client.event("chat").await, relayed, "{kind:?} {name}");
            }
        }
        for (client, name) in &mut all {
            assert_eq!(client.drain().await, Vec::<Value>::new(), "{kind:?} {name}");
        }

        let path = format!("/location/{id}");
        stage.passes[6].must(&server, Method::DELETE, &path, None).await;
        for (n, (client, name)) in all.iter_mut().enumerate() {
            if cell("room_closed, at DELETE", n).is_empty() {
                let closed = client.event("room_closed").await;
                assert_eq!(closed, json!({"roomName": room, "reason": "deleted"}), "{kind:?} {name}");
            }
            assert_eq!(cell("leave_room", n), "");
            client.leave(id).await;
            assert_eq!(client.drain().await, Vec::<Value>::new(), "{kind:?} {name}");
            client.disconnect();
        }
    }
    server.stop().await;
}

async fn a_right_that_ends_takes_its_sockets_out_and_is_gone_for_requests(db: Db) {
    let server = TestServer::start_with(db, LOCKED).await;
    let clients = Clients::start();
    let owner = Pass::user(OWNER);
    for kind in KINDS {
        let stage = Stage::set(&server).await;
        let (id, room) = (stage.id, stage.id.to_string());
        let mut all: Vec<Client> = Vec::new();
        for caller in [3, 4, 5, 6] {
            let mut client = stage.passes[caller].connect_as(&clients, kind, &server.gateway).await;
            client.join(id).await;
            all.push(client);
        }
        let ends = [
            (3, &owner, format!("/location/{id}/shares/{}", stage.share), Code::InvalidShare),
            (4, &owner, format!("/location/{id}/members/{VIEWER}"), Code::NotFound),
            // By their own hand.
            (5, &stage.passes[5], format!("/location/{id}/members/{EDITOR}"), Code::NotFound),
        ];
        for (n, (caller, by, path, refused)) in ends.into_iter().enumerate() {
            let about = format!("{kind:?} {}", CALLERS[caller]);
            by.must(&server, Method::DELETE, &path, None).await;
            let closed = all[n].event("room_closed").await;
            assert_eq!(closed, json!({"roomName": room, "reason": "revoked"}), "{about}");
            owner.mv(&server, id).await;
            let ack = all[n].ask("chat", json!({"message": "still here", "roomName": room})).await;
            assert_eq!(code(&ack), "not_in_room", "{about}");
            for payload in [json!({"locationId": id}), json!({"locationId": id, "since": 0})] {
                assert_eq!(code(&all[n].ask("join_room", payload).await), "not_found", "{about}");
            }
            for path in [format!("/location/{id}"), format!("/location/{id}/history")] {
                let answer =
                    Problem::of(stage.passes[caller].send(&server, Method::GET, &path, None).await).await;
                let answer = answer.unwrap_or_else(|e| panic!("{about}: {e}"));
                assert_eq!(answer.code, refused.as_str(), "{about}");
            }
            for stays in &mut all[n + 1..] {
                let version = 2 + n as u64;
                stays.follow(id, version - 1, version).await;
                assert_eq!(stays.drain().await, Vec::<Value>::new(), "{about}");
            }
            assert_eq!(all[n].drain().await, Vec::<Value>::new(), "{about}");
        }
        let mut again = stage.passes[3].open(&clients, kind, &server.gateway);
        assert_eq!(refusal(&mut again).await, "invalid_share", "{kind:?}");
        all.iter().for_each(Client::disconnect);
    }
    server.stop().await;
}

async fn a_guest_sees_nothing_from_before_the_share_link(db: Db) {
    let server = TestServer::start_with(db, LOCKED).await;
    let clients = Clients::start();
    let owner = Pass::user(OWNER);
    let id = owner.create(&server).await;
    for _ in 2..=5 {
        owner.mv(&server, id).await;
    }
    let guest = owner.guest(&server, id).await;
    let versions = async |pass: &Pass, query: &str| {
        let (status, list) = pass.get(&server, &format!("/location/{id}/history{query}")).await;
        assert_eq!(status, StatusCode::OK, "{list}");
        let versions = list["features"].as_array().expect("a list").iter();
        versions.map(|one| one["properties"]["version"].as_u64().expect("a version")).collect::<Vec<_>>()
    };
    for head in 5..8 {
        let all: Vec<u64> = (5..=head).collect();
        for query in ["", "?since=0", "?since=1", "?since=4", "?since=0&limit=1000"] {
            assert_eq!(versions(&guest, query).await, all, "{query}");
        }
        assert_eq!(versions(&guest, "?since=3&limit=1").await, [5]);
        assert_eq!(versions(&guest, "?since=5").await, all[1..]);
        assert_eq!(versions(&owner, "").await, (1..=head).collect::<Vec<_>>());
        for kind in KINDS {
            // Whether the room remembers older versions or not.
            for is_live in [false, true] {
                let mut resident = owner.connect(&clients, &server.gateway).await;
                if is_live {
                    resident.ask("join_room", json!({"locationId": id, "since": 0})).await;
                    resident.follow(id, 0, head).await;
                }
                let mut client = guest.connect_as(&clients, kind, &server.gateway).await;
                for since in 0..4 {
                    let ack = client.ask("join_room", json!({"locationId": id, "since": since})).await;
                    let lost = json!({"roomName": id.to_string(), "version": head, "recovered": false});
                    assert_eq!(ack, lost, "{kind:?} since {since}");
                    assert_eq!(client.event("chat").await["version"], head, "{kind:?} since {since}");
                }
                for since in 4..=head {
                    let ack = client.ask("join_room", json!({"locationId": id, "since": since})).await;
                    assert_eq!(ack["recovered"], true, "{kind:?} since {since}");
                    client.follow(id, since, head).await;
                }
                assert_eq!(client.drain().await, Vec::<Value>::new(), "{kind:?}");
                client.disconnect();
                resident.disconnect();
            }
        }
        owner.mv(&server, id).await;
    }
    server.stop().await;
}

async fn a_right_gained_or_changed_counts_for_sockets_that_are_connected(db: Db) {
    let server = TestServer::start_with(db, LOCKED).await;
    let clients = Clients::start();
    let (owner, member) = (Pass::user(OWNER), Pass::user(VIEWER));
    let id = owner.create(&server).await;
    let mut resident = owner.connect(&clients, &server.gateway).await;
    resident.join(id).await;
    let mut version = 1;
    for kind in KINDS {
        let mut client = member.connect_as(&clients, kind, &server.gateway).await;
        let ack = client.ask("join_room", json!({"locationId": id})).await;
        assert_eq!(code(&ack), "not_found", "{kind:?}");
        owner.grant(&server, id, VIEWER, "viewer").await;
        assert_eq!(client.join(id).await["version"], version, "{kind:?}");
        let body = json!({"id": id, "geometry": point(2.5, 2.5)});
        let refused = Problem::of(member.send(&server, Method::PUT, "/location", Some(&body)).await).await;
        Problem::check(refused, StatusCode::FORBIDDEN, Code::Forbidden, "a viewer");
        // Neither way is anybody sent out.
        for role in ["editor", "viewer", "editor"] {
            owner.grant(&server, id, VIEWER, role).await;
        }
        let moved = member.mv(&server, id).await;
        version += 1;
        assert_eq!(moved["properties"]["updatedBy"], VIEWER);
        assert_eq!(moved["properties"]["userId"], OWNER);
        for client in [&mut client, &mut resident] {
            assert_eq!(client.follow(id, version - 1, version).await[0]["userId"], VIEWER, "{kind:?}");
        }
        member.must(&server, Method::DELETE, &format!("/location/{id}/members/{VIEWER}"), None).await;
        let closed = client.event("room_closed").await;
        assert_eq!(closed, json!({"roomName": id.to_string(), "reason": "revoked"}), "{kind:?}");
        assert_eq!(client.drain().await, Vec::<Value>::new(), "{kind:?}");
        client.disconnect();
    }
    assert_eq!(resident.drain().await, Vec::<Value>::new());
    server.stop().await;
}
