//! Too much of something: who sends it is told so, nobody else notices, and an honest fleet never meets a limit.

mod connections;
mod events;
mod fleet;

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use georoom::domain::error::Code;
use reqwest::{Method, RequestBuilder, Response, StatusCode, header::RETRY_AFTER};
use sea_orm::ConnectionTrait;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{interval, sleep, timeout},
};

use crate::{
    on_both_databases, on_one_database,
    support::{
        Db, TestServer,
        clients::{Client, Clients, KINDS},
        exposition::Exposition,
        kernel::not_ended,
        machine, point,
        polling::{Polling, open_session},
        problem::Problem,
        tokens::{KEY, LOCKED, Pass, code, in_ms, refusal, token},
        websocket::{Seen, WebSocket, frame},
    },
};

on_both_databases!(who_tells_many_people_pays_for_it,);

on_one_database!(
    too_many_requests_of_a_user_are_refused_and_change_nothing,
    passwords_of_share_links_cannot_be_tried_for_long,
);

const ON: (&str, &str) = ("RATE_LIMITS", "on");

const OWNER: u64 = 10;

const OTHER: u64 = 11;

/// Longer than anything here takes on a busy machine; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// With a key, limits and settings of its own.
async fn locked(db: Db, settings: &[(&str, &str)]) -> TestServer {
    TestServer::start_with(db, &[LOCKED, &[ON], settings].concat()).await
}

/// How often a limit was met, as a scrape reads it.
async fn counted(server: &TestServer, limit: &str) -> usize {
    let answer = server.http.get(format!("{}/metrics", server.api)).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    let text = answer.text().await.expect("text");
    let name = format!("georoom_limited_total{{limit=\"{limit}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().expect("a number")
}

/// The refusal of an answer; after how many seconds to try again.
async fn limited(answer: Response) -> u64 {
    let after = answer.headers().get(RETRY_AFTER).expect("Retry-After").to_str().expect("ASCII").to_owned();
    Problem::check(Problem::of(answer).await, StatusCode::TOO_MANY_REQUESTS, Code::RateLimited, "too many");
    let after = after.parse().expect("seconds");
    assert!((1..=60).contains(&after), "{after}");
    after
}

/// Sends all at once; which were let through.
async fn flood(requests: impl IntoIterator<Item = RequestBuilder>) -> Vec<Response> {
    let answers = join_all(requests.into_iter().map(RequestBuilder::send)).await;
    answers.into_iter().map(|answer| answer.expect("an answer")).collect()
}

async fn too_many_requests_of_a_user_are_refused_and_change_nothing(db: Db) {
    let server = locked(db, &[("LIMIT_USER_REQUESTS", "5")]).await;
    let (owner, other) = (Pass::user(OWNER), Pass::user(OTHER));
    let id = owner.create(&server).await;
    let mv = |n: u32| {
        let body = json!({"id": id, "geometry": point(f64::from(n) / 100.0, 0.5)});
        owner.on(server.http.put(format!("{}/location", server.api))).json(&body)
    };
    let started = Instant::now();
    let (mut moved, mut refused) = (0, 0);
    for answer in flood((0..100).map(mv)).await {
        match answer.status() {
            StatusCode::CREATED => moved += 1,
            _ => {
                limited(answer).await;
                refused += 1;
            }
        }
    }
    // Five seconds' worth at once, less the POST, and what has come back meanwhile.
    let most = 25 + 5 * (1 + started.elapsed().as_secs());
    assert!((24..=most).contains(&moved), "{moved} of at most {most}");
    assert_eq!(counted(&server, "user_requests").await, refused);
    let location = other.get(&server, "/location").await;
    assert_eq!(location.0, StatusCode::OK, "another user at the same address");

    // Who waits as told is let in again, and finds what was let through.
    let body = loop {
        let answer = owner.send(&server, Method::GET, &format!("/location/{id}"), None).await;
        if answer.status() == StatusCode::OK {
            break answer.json::<Value>().await.expect("JSON");
        }
        assert!(started.elapsed() < PATIENCE);
        sleep(Duration::from_secs(limited(answer).await)).await;
    };
    assert_eq!(body["properties"]["version"], moved + 1);
    server.stop().await;
}

async fn who_tells_many_people_pays_for_it(db: Db) {
    let server = locked(db, &[("LIMIT_USER_REQUESTS", "20")]).await;
    let raw = server.database.open().await;
    let followed = async |owner: u64, members: u64| {
        let id = Pass::user(owner).create(&server).await;
        let members: Vec<_> = (1_000..1_000 + members).map(|user| format!("({id},{user},1,5)")).collect();
        let sql =
            format!("INSERT INTO member (location_id, user_id, role, added_at) VALUES {}", members.join(","));
        raw.execute_unprepared(&sql).await.expect("members");
        id
    };
    let patch = |owner: u64, id: u64, properties: Value| {
        let body = json!({"properties": properties});
        Pass::user(owner).on(server.http.put(format!("{}/location/{id}", server.api))).json(&body)
    };
    let rename = |owner, id, n| patch(owner, id, json!({"name": format!("bike {n}")}));
    // A hundred requests at once, and each tells as many as eighty cost; however they come.
    let many = followed(OWNER, 2_000).await;
    let (mut told, mut refused) = (0, 0);
    for answer in flood((0..40).map(|n| rename(OWNER, many, n))).await {
        match answer.status() {
            StatusCode::CREATED => told += 1,
            _ => {
                limited(answer).await;
                refused += 1;
            }
        }
    }
    assert!((1..=4).contains(&told), "{told} times");
    assert_eq!(counted(&server, "user_requests").await, refused);
    // Whatever it is that they ask for next, and until it is paid.
    let owner = Pass::user(OWNER);
    let after = limited(owner.send(&server, Method::GET, &format!("/location/{many}"), None).await).await;
    let moved = Pass::user(OTHER).create(&server).await;
    Pass::user(OTHER).mv(&server, moved).await;
    sleep(Duration::from_secs(after)).await;
    let answer = owner.send(&server, Method::GET, &format!("/location/{many}"), None).await;
    assert_eq!(answer.status(), StatusCode::OK, "paid after {after} s");

    // What lists show.
    let seen = followed(OTHER + 3, 2_000).await;
    let seen = flood((0..5).map(|n| patch(OTHER + 3, seen, json!({"battery": n})))).await;
    assert!(seen.iter().any(|answer| answer.status() == StatusCode::CREATED));
    limited(Pass::user(OTHER + 3).send(&server, Method::GET, "/location", None).await).await;
    // Share links.
    let shared = followed(OTHER + 1, 2_000).await;
    let body = json!({"expiresAt": in_ms(60_000)});
    let share = |_| {
        let request = server.http.post(format!("{}/location/{shared}/shares", server.api));
        Pass::user(OTHER + 1).on(request).json(&body)
    };
    let shared = flood((0..20).map(share)).await;
    let made = shared.iter().filter(|answer| answer.status() == StatusCode::CREATED).count();
    assert!((1..=4).contains(&made), "{made} times");

    // The end of a location.
    let mut gone = Vec::new();
    for _ in 0..3 {
        gone.push(followed(OTHER + 4, 2_000).await);
    }
    let delete = |id| Pass::user(OTHER + 4).on(server.http.delete(format!("{}/location/{id}", server.api)));
    let deleted = flood(gone.into_iter().map(delete)).await;
    assert!(deleted.iter().any(|answer| answer.status() == StatusCode::NO_CONTENT));
    limited(Pass::user(OTHER + 4).send(&server, Method::GET, "/location", None).await).await;

    // Who tells few pays for the request and for nothing else.
    let few = followed(OTHER + 2, 24).await;
    for answer in flood((0..90).map(|n| rename(OTHER + 2, few, n))).await {
        assert_eq!(answer.status(), StatusCode::CREATED);
    }
    raw.close().await.expect("close");
    server.stop().await;
}

/// At both doors, and without taking it out on those at the same address who are known.
#[tokio::test(flavor = "multi_thread")]
async fn who_shows_nothing_valid_is_soon_refused_without_being_told_why() {
    let server = locked(Db::Sqlite, &[("LIMIT_ADDRESS_REFUSALS", "1")]).await;
    let owner = Pass::user(OWNER);
    let id = owner.create(&server).await;
    let get = |pass: &Pass, from: &str| {
        let request = pass.on(server.http.get(format!("{}/location/{id}", server.api)));
        request.header("X-Forwarded-For", from)
    };
    let bad = Pass::Token(format!("{}x", token(OWNER)));
    for (stranger, neighbour, other) in [
        ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
        // Whoever has one address of an IPv6 network of 64 bits has all of them.
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:db8:1:3::1"),
    ] {
        let answers = flood((0..40).map(|n| get(if n % 2 == 0 { &bad } else { &Pass::Nothing }, stranger)));
        let mut refused = 0;
        for answer in answers.await {
            if answer.status() == StatusCode::TOO_MANY_REQUESTS {
                limited(answer).await;
                refused += 1;
            } else {
                assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
            }
        }
        assert!((20..=35).contains(&refused), "{refused} of 40");
        limited(get(&Pass::Nothing, neighbour).send().await.expect("an answer")).await;
        let answer = get(&Pass::Nothing, other).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "another address");
        let answer = get(&owner, neighbour).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK, "a good token from the same address");
    }

    let clients = Clients::start();
    let mut said = Vec::new();
    for n in 0..12 {
        let mut client = bad.open(&clients, KINDS[n % KINDS.len()], &server.gateway);
        said.push(refusal(&mut client).await);
        client.kill();
    }
    let invalid = said.iter().filter(|code| *code == "invalid_token").count();
    let limited = said.iter().filter(|code| *code == "rate_limited").count();
    assert!(invalid >= 5 && limited >= 1 && invalid + limited == 12, "{said:?}");
    owner.connect(&clients, &server.gateway).await.join(id).await;
    assert!(counted(&server, "address_refusals").await > limited);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_open_mode_and_by_share_links_an_address_has_its_limit() {
    let settings = [ON, ("LIMIT_ADDRESS_REQUESTS", "2")];
    let open = TestServer::start_with(Db::Sqlite, &settings).await;
    let id = open.create_at(0.5, 0.5).await;
    let locked = locked(Db::Sqlite, &settings).await;
    let owner = Pass::user(OWNER);
    let shared = owner.create(&locked).await;
    let guest = owner.guest(&locked, shared).await;
    for (server, pass, id) in [(&open, Pass::Nothing, id), (&locked, guest, shared)] {
        let get = |path: &str, from: &str| {
            let request = pass.on(server.http.get(format!("{}{path}", server.api)));
            request.header("X-Forwarded-For", from.to_owned())
        };
        let path = format!("/location/{id}");
        let answers = flood((0..30).map(|_| get(&path, "192.0.2.7"))).await;
        let refused =
            answers.iter().filter(|answer| answer.status() == StatusCode::TOO_MANY_REQUESTS).count();
        let seen = answers.iter().filter(|answer| answer.status() == StatusCode::OK).count();
        assert!(refused >= 10 && seen >= 10 && refused + seen == 30, "{seen} and {refused}");
        assert_eq!(counted(server, "address_requests").await, refused);
        let status = async |path: &str, from: &str| get(path, from).send().await.expect("an answer").status();
        assert_eq!(status(&path, "192.0.2.8").await, StatusCode::OK);
        // Load balancers are not counted.
        assert_eq!(status("/healthz", "192.0.2.7").await, StatusCode::OK);
        assert_eq!(status("/readyz", "192.0.2.7").await, StatusCode::OK);
    }
    open.stop().await;
    locked.stop().await;
}

async fn passwords_of_share_links_cannot_be_tried_for_long(db: Db) {
    const PASSWORD: &str = "correct-horse";
    let server = locked(db, &[("LIMIT_SHARE_PASSWORDS", "4")]).await;
    let owner = Pass::user(OWNER);
    let id = owner.create(&server).await;
    let shares = [
        owner.share(&server, id, json!({"password": PASSWORD})).await,
        owner.share(&server, id, json!({"password": PASSWORD})).await,
        owner.share(&server, id, json!({"password": PASSWORD})).await,
    ];
    let shares: Vec<&str> = shares.iter().map(|share| share["token"].as_str().expect("a token")).collect();
    let get = |share: &str, password: &str| {
        let pass = Pass::Share(share.to_owned(), Some(password.to_owned()));
        pass.on(server.http.get(format!("{}/location/{id}", server.api)))
    };
    let statuses = async |requests: Vec<RequestBuilder>| -> Vec<u16> {
        flood(requests).await.iter().map(|answer| answer.status().as_u16()).collect()
    };

    // All viewers come back at once, and nobody has shown the password before.
    assert_eq!(statuses((0..30).map(|_| get(shares[0], PASSWORD)).collect()).await, [200; 30]);

    let said = statuses((0..30).map(|n| get(shares[1], &format!("{PASSWORD}{n}"))).collect()).await;
    let (wrong, refused) =
        (said.iter().filter(|status| **status == 401).count(), said.iter().filter(|s| **s == 429).count());
    assert!((4..=6).contains(&wrong) && wrong + refused == 30, "{said:?}");
    assert_eq!(counted(&server, "share_passwords").await, refused);
    let answer = get(shares[1], PASSWORD).send().await.expect("an answer");
    assert!(limited(answer).await > 1, "one comes back every 15 seconds");
    let clients = Clients::start();
    let guest = Pass::Share(shares[1].to_owned(), Some("wrong".to_owned()));
    assert_eq!(refusal(&mut guest.open(&clients, KINDS[0], &server.gateway)).await, "rate_limited");

    // Nobody else pays for it: not who comes from elsewhere, nor the guests of another link, nor who has shown
    // the right one before.
    assert_eq!(statuses(vec![get(shares[1], PASSWORD).header("X-Forwarded-For", "192.0.2.8")]).await, [200]);
    assert_eq!(statuses(vec![get(shares[2], PASSWORD)]).await, [200]);
    statuses((0..30).map(|n| get(shares[0], &format!("{PASSWORD}{n}"))).collect()).await;
    assert_eq!(statuses(vec![get(shares[0], PASSWORD)]).await, [200]);
    server.stop().await;
}

async fn sent(addr: std::net::SocketAddr, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.expect("a connection");
    stream.write_all(text.as_bytes()).await.expect("to write");
    stream
}

/// What comes over a connection until its end.
async fn rest(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is an end too.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("an end");
    String::from_utf8_lossy(&bytes).into_owned()
}
