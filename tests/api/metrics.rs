//! What `/metrics` says of what was done, counted exactly; and that dashboard, alerts and documents name what
//! there is.

use std::{collections::BTreeSet, fs, path::Path};

use georoom::domain::error::Code;
use reqwest::{Method, StatusCode};
use sea_orm::ConnectionTrait;
use serde_json::{Value, json};

use crate::{
    on_both_databases,
    support::{
        Db, TestDatabase, TestServer,
        exposition::Exposition,
        point,
        polling::Polling,
        proxy::Proxy,
        tokens::LOCKED,
        websocket::{Seen, WebSocket},
    },
};

on_both_databases!(
    puts_commits_and_deliveries_are_counted_one_by_one,
    what_a_reader_was_spared_is_counted,
    a_commit_nobody_told_of_is_counted_as_healed,
);

const WEBSOCKETS: &str = r#"georoom_sockets{transport="websocket"}"#;
const POLLING: &str = r#"georoom_sockets{transport="polling"}"#;

/// The sample of refusals with a code.
fn refused(door: &str, code: Code) -> String {
    format!(r#"georoom_refusals_total{{door="{door}",code="{}"}}"#, code.as_str())
}

async fn puts_commits_and_deliveries_are_counted_one_by_one(db: Db) {
    let server = TestServer::start(db).await;
    let before = Exposition::scrape(&server).await;
    before.assert(&[("georoom_database_up", 1.0), (r#"georoom_http_responses_total{class="2xx"}"#, 0.0)]);
    for (name, family) in &before.families {
        let is_at_rest = name.starts_with("process_")
            || ["georoom_build_info", "georoom_database_up", "georoom_queue_limit"].contains(&name.as_str());
        for suffix in family.suffixes() {
            assert!(is_at_rest || before.sum(&format!("{name}{suffix}")) == 0.0, "{name}");
        }
    }

    let id = server.create_at(13.4, 52.5).await;
    let mut first = WebSocket::connect(&server.gateway).await;
    let mut second = WebSocket::connect(&server.gateway).await;
    let mut third = Polling::connect(&server.gateway).await;
    first.join(&[id]).await;
    second.join(&[id]).await;
    third.ask("join_room", &json!({"locationId": id})).await;
    third.chat().await;
    for n in 2..=11 {
        server.move_to(id, 13.4, 52.5 + f64::from(n) / 1000.0).await;
        for member in [&mut first, &mut second] {
            assert!(matches!(member.next().await, Seen::Position(position) if position.version == n as u64));
        }
        third.chat().await;
    }
    let counted = Exposition::until(&server, "georoom_put_to_send_seconds_count", 10.0).await;
    counted.assert(&[
        ("georoom_puts_total", 10.0),
        ("georoom_commits_total", 11.0),
        ("georoom_commit_rows_sum", 11.0),
        ("georoom_commit_rows_count", 11.0),
        (r#"georoom_commit_rows_bucket{le="1.0"}"#, 11.0),
        ("georoom_commit_duration_seconds_count", 11.0),
        ("georoom_deliveries_total", 30.0),
        ("georoom_join_deliveries_total", 3.0),
        ("georoom_conflated_total", 0.0),
        ("georoom_sweep_healed_total", 0.0),
        ("georoom_rooms", 1.0),
        ("georoom_rooms_behind", 0.0),
        (WEBSOCKETS, 2.0),
        (POLLING, 1.0),
        (r#"georoom_queue_length{queue="writer"}"#, 0.0),
        (r#"georoom_queue_limit{queue="writer"}"#, 4096.0),
        (r#"georoom_queue_length{queue="forwarder"}"#, 0.0),
        (r#"georoom_queue_limit{queue="forwarder"}"#, 1024.0),
        (r#"georoom_queue_length{queue="expiry"}"#, 0.0),
        (r#"georoom_queue_limit{queue="expiry"}"#, 1024.0),
        (r#"georoom_queue_length{queue="room_reads"}"#, 0.0),
        (r#"georoom_queue_limit{queue="room_reads"}"#, 8.0),
        ("georoom_writer_queue_bytes", 0.0),
        (r#"georoom_http_responses_total{class="4xx"}"#, 0.0),
    ]);
    assert_eq!(counted.sum("georoom_refusals_total"), 0.0);
    for took in ["georoom_put_to_send_seconds_sum", "georoom_commit_duration_seconds_sum"] {
        let took = counted.value(took);
        assert!(0.0 < took && took < 20.0, "{took} s for eleven");
    }

    // A commit that changes nothing because all in it is refused writes no row.
    let (status, _) = server.put(&json!({"id": id + 1, "geometry": point(1.0, 2.0)})).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, _) = server.put(&json!({"id": id, "geometry": point(181.0, 2.0)})).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(server.send(Method::PATCH, "/location", None).await.status(), StatusCode::METHOD_NOT_ALLOWED);
    first.emit("chat", &json!({"roomName": id + 1, "message": "hello"})).await;
    first.emit("no_such_event", &json!({})).await;
    for _ in 0..2 {
        assert!(matches!(first.next().await, Seen::Ack(_, body) if body["status"] == "error"));
    }
    let (unknown, outside) = (refused("http", Code::NotFound), refused("http", Code::LongitudeOutOfRange));
    let (method, chat) = (refused("http", Code::MethodNotAllowed), refused("gateway", Code::NotInRoom));
    let counted = Exposition::scrape(&server).await;
    counted.assert(&[
        (&unknown, 1.0),
        (&outside, 1.0),
        (&method, 1.0),
        (&chat, 1.0),
        (&refused("gateway", Code::UnknownEvent), 1.0),
        ("georoom_puts_total", 10.0),
        ("georoom_commit_rows_sum", 11.0),
        (r#"georoom_http_responses_total{class="4xx"}"#, 3.0),
    ]);
    assert_eq!(counted.sum("georoom_refusals_total"), 5.0);

    drop(first);
    drop(second);
    third.send("41").await;
    Exposition::until(&server, WEBSOCKETS, 0.0).await;
    Exposition::until(&server, POLLING, 0.0).await.assert(&[("georoom_rooms", 0.0)]);
    // Nobody there: it is sent to nobody.
    server.move_to(id, 1.0, 2.0).await;
    Exposition::scrape(&server).await.assert(&[
        ("georoom_puts_total", 11.0),
        ("georoom_deliveries_total", 30.0),
        ("georoom_put_to_send_seconds_count", 10.0),
    ]);
    server.stop().await;
}

/// More than a socket may have unread, and more than the kernel could hide.
async fn what_a_reader_was_spared_is_counted(db: Db) {
    const UPDATES: u64 = 40;
    let server = TestServer::start(db).await;
    let id = server.create_at(1.0, 2.0).await;
    let mut live = WebSocket::connect(&server.gateway).await;
    let mut stalled = WebSocket::connect_to(&server.gateway, "/socket.io/", true).await;
    live.join(&[id]).await;
    stalled.join(&[id]).await;
    let large = "x".repeat(8 * 1024);
    for n in 0..UPDATES {
        let body = json!({"id": id, "geometry": point(1.0, n as f64), "properties": {"large": large}});
        server.update(&server.api, &body).await;
        assert!(matches!(live.next().await, Seen::Position(position) if position.version == n + 2));
    }
    // To the other one not all could be sent.
    Exposition::until(&server, "georoom_rooms_behind", 1.0).await.assert(&[("georoom_conflated_total", 0.0)]);
    let mut seen = 0;
    loop {
        let Seen::Position(position) = stalled.next().await else { panic!("a position") };
        seen += 1;
        if position.version == UPDATES + 1 {
            break;
        }
    }
    assert!((1..UPDATES).contains(&seen), "{seen}");
    Exposition::until(&server, "georoom_rooms_behind", 0.0).await.assert(&[
        ("georoom_puts_total", UPDATES as f64),
        ("georoom_deliveries_total", (UPDATES + seen) as f64),
        ("georoom_conflated_total", (UPDATES - seen) as f64),
        ("georoom_put_to_send_seconds_count", UPDATES as f64),
    ]);
    server.stop().await;
}

async fn a_commit_nobody_told_of_is_counted_as_healed(db: Db) {
    let server = TestServer::start(db).await;
    let id = server.create_at(1.0, 2.0).await;
    let mut member = WebSocket::connect(&server.gateway).await;
    member.join(&[id]).await;
    let behind = server.database.open().await;
    for sql in [
        "INSERT INTO history (location_id, version, geometry, altitudes, properties, updated_by, updated_at) \
         SELECT location_id, version + 1, geometry, altitudes, properties, updated_by, updated_at FROM history",
        "UPDATE location SET version = version + 1",
    ] {
        behind.execute_unprepared(sql).await.expect(sql);
    }
    assert!(matches!(member.next().await, Seen::Position(position) if position.version == 2));
    Exposition::until(&server, "georoom_deliveries_total", 1.0).await.assert(&[
        ("georoom_sweep_healed_total", 1.0),
        ("georoom_puts_total", 0.0),
        // Nobody knows when it came.
        ("georoom_put_to_send_seconds_count", 0.0),
    ]);
    behind.close().await.expect("close");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_is_counted_where_it_is() {
    let server = TestServer::start(Db::Sqlite).await;
    let polling = Polling::connect(&server.gateway).await;
    Exposition::scrape(&server).await.assert(&[(POLLING, 1.0), (WEBSOCKETS, 0.0)]);
    let path = "/socket.io/";
    let mut client = WebSocket::open(&server.gateway, path, Some(&polling.session), false).await;
    client.send("2probe").await;
    assert_eq!(client.text().await.as_deref(), Some("3probe"));
    client.send("5").await;
    Exposition::until(&server, WEBSOCKETS, 1.0).await.assert(&[(POLLING, 0.0)]);
    drop(client);
    Exposition::until(&server, WEBSOCKETS, 0.0).await.assert(&[(POLLING, 0.0)]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_let_in_is_a_refusal_and_no_socket() {
    let server = TestServer::start_with(Db::Sqlite, LOCKED).await;
    let mut stranger = WebSocket::open(&server.gateway, "/socket.io/", None, false).await;
    assert!(stranger.text().await.expect("open").starts_with('0'));
    stranger.send("40").await;
    let refused_with = stranger.text().await.expect("a refusal");
    assert!(refused_with.starts_with(r#"44{"message":"unauthorized","data":{"#), "{refused_with}");
    assert_eq!(server.get("/location").await.0, StatusCode::UNAUTHORIZED);
    Exposition::scrape(&server).await.assert(&[
        (&refused("gateway", Code::Unauthorized), 1.0),
        (&refused("http", Code::Unauthorized), 1.0),
        (WEBSOCKETS, 0.0),
        (POLLING, 0.0),
    ]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_is_seen_and_does_not_hold_up_a_scrape() {
    let database = TestDatabase::create(Db::MySql).await;
    let proxy = Proxy::start(&database, None).await;
    let url = proxy.url.clone();
    let server = TestServer::start_on(database, &[("DATABASE_URL", &url)]).await;
    let id = server.create_at(1.0, 2.0).await;
    Exposition::scrape(&server).await.assert(&[("georoom_database_up", 1.0)]);
    let addr = proxy.cut().await;
    let body = json!({"id": id, "geometry": point(1.0, 3.0)});
    let ((status, _), _) =
        tokio::join!(server.put(&body), Exposition::until(&server, "georoom_database_up", 0.0));
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    Exposition::scrape(&server).await.assert(&[
        (&refused("http", Code::StorageUnavailable), 1.0),
        (r#"georoom_http_responses_total{class="5xx"}"#, 1.0),
        ("georoom_commits_total", 1.0),
    ]);
    let proxy = Proxy::start(&server.database, Some(addr)).await;
    Exposition::until(&server, "georoom_database_up", 1.0).await;
    let database = server.halt().await;
    proxy.cut().await;
    database.drop().await;
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path)
}

/// The metrics that a text names.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let is_metric = |word: &&str| word.starts_with("georoom_") || word.starts_with("process_");
    words.filter(is_metric).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_counted_is_documented_and_what_is_named_is_counted() {
    let server = TestServer::start(Db::Sqlite).await;
    let counted = Exposition::scrape(&server).await;
    let names = counted.names();
    let operations = read("docs/operations.md");
    for path in ["docs/operations.md", "ops/prometheus/alerts.yml", "ops/grafana/georoom.json", "README.md"] {
        let unknown: Vec<_> = named(&read(path)).into_iter().filter(|name| !names.contains(name)).collect();
        // A histogram's name alone stands for its three in the table.
        let unknown: Vec<_> = unknown.iter().filter(|name| !counted.families.contains_key(*name)).collect();
        assert!(unknown.is_empty(), "{path}: {unknown:?}");
    }
    for (name, family) in &counted.families {
        let name = match family.kind.as_str() {
            "histogram" => name.clone(),
            _ => format!("{name}{}", family.suffixes()[0]),
        };
        let row = operations.lines().find(|line| line.starts_with(&format!("| `{name}` ")));
        let row = row.unwrap_or_else(|| panic!("docs/operations.md has no row for {name}"));
        assert!(row.contains(&format!("| {} |", family.kind)), "{row}: {}", family.kind);
        assert_eq!(row.contains(" s |"), family.unit.as_deref() == Some("seconds"), "{row}");
    }
    server.stop().await;
}

#[test]
fn dashboard_and_alerts_are_what_grafana_and_prometheus_take() {
    let dashboard: Value = serde_json::from_str(&read("ops/grafana/georoom.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{} twice", panel["id"]);
        if panel["type"] == "row" {
            continue;
        }
        let title = panel["title"].as_str().expect("a title");
        assert!(panel["description"].as_str().is_some_and(|text| text.len() > 10), "{title}");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title}");
        for target in panel["targets"].as_array().expect("targets") {
            let query = target["expr"].as_str().expect("a query");
            assert!(query.contains(r#"instance=~"$instance""#), "{title}: {query}");
        }
    }
    let alerts: Value = serde_norway::from_str(&read("ops/prometheus/alerts.yml")).expect("YAML");
    for rule in alerts["groups"][0]["rules"].as_array().expect("rules") {
        for text in
            [&rule["alert"], &rule["expr"], &rule["annotations"]["summary"], &rule["labels"]["severity"]]
        {
            assert!(text.is_string(), "{rule}");
        }
    }
}
