//! What a MySQL limits: how large a packet may be, and how many connections an account has.
//!
//! Each test has a MySQL of its own, because it changes what holds for all of it.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use georoom::domain::error::Code;
use reqwest::{Method, StatusCode};
use sea_orm::{ConnectionTrait, DatabaseBackend, DatabaseConnection, Statement};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::support::{
    QUIET,
    mysqld::Mysqld,
    noise::{self, DATABASE_AWAY, NO_CONNECTION},
    point,
    problem::Problem,
    process::Process,
    site::Site,
};

/// Longer than anything here takes on a busy machine; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(30);
/// After connections were lost, until what is sent is committed again.
const RESUMED_WITHIN: Duration = Duration::from_secs(10);

/// A user of the name `app` with so many connections, and a site that uses it.
async fn limited(mysqld: &Mysqld, connections: u32, settings: &[(&str, &str)]) -> (DatabaseConnection, Site) {
    let admin = mysqld.open().await;
    let create = format!("CREATE USER app WITH MAX_USER_CONNECTIONS {connections}");
    for sql in [&create, "GRANT ALL ON georoom.* TO app"] {
        admin.execute_unprepared(sql).await.expect(sql);
    }
    let url = mysqld.url().replacen("root@", "app@", 1);
    (admin, Site::on(&url, settings))
}

/// The connections of `app`.
async fn connections(admin: &DatabaseConnection) -> Vec<i64> {
    let list = Statement::from_string(DatabaseBackend::MySql, "SHOW PROCESSLIST");
    let rows = admin.query_all_raw(list).await.expect("the connections");
    let is_apps = |row: &&sea_orm::QueryResult| row.try_get::<String>("", "User").expect("a user") == "app";
    rows.iter().filter(is_apps).map(|row| row.try_get("", "Id").expect("an id")).collect()
}

async fn put(site: &Site, id: u64, body: Value) -> (StatusCode, Value) {
    site.send(Method::PUT, &format!("/location/{id}"), Some(body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_fit_into_the_packets_of_the_server_and_only_what_never_fits_is_refused() {
    let mysqld = Mysqld::started().await;
    let admin = mysqld.open().await;
    admin.execute_unprepared("SET GLOBAL max_allowed_packet = 1048576").await.unwrap();
    let (site, http) = (Site::on(&mysqld.url(), &[QUIET]), reqwest::Client::new());
    let server = site.start().await;
    let ids = site.create(20).await;
    // Each is a quarter of a packet: its row and that of its history, in hexadecimal.
    let large = |n: usize| json!({"properties": {"n": n, "filler": "x".repeat(60_000)}});
    let positions: Vec<_> = (0..40_000).map(|n| json!([f64::from(n) / 1e3, 0.5, 1.5])).collect();
    let too_large = json!({"geometry": {"type": "LineString", "coordinates": positions}});
    for round in 0..3 {
        let puts = join_all(ids.iter().map(|id| put(&site, *id, large(round))));
        let neighbours = join_all(ids.iter().map(|id| put(&site, *id, json!({"geometry": point(1.0, 2.0)}))));
        let refused = async {
            for (method, path) in
                [(Method::PUT, format!("/location/{}", ids[0])), (Method::POST, "/location".into())]
            {
                let request = http.request(method, format!("{}{path}", site.api)).json(&too_large);
                let problem = Problem::of(request.send().await.expect("an answer")).await;
                let problem =
                    Problem::check(problem, StatusCode::PAYLOAD_TOO_LARGE, Code::PayloadTooLarge, &path);
                assert!(problem.detail.contains("max_allowed_packet"), "{}", problem.detail);
            }
        };
        let (puts, neighbours, ()) = tokio::join!(puts, neighbours, refused);
        for (status, body) in puts.into_iter().chain(neighbours) {
            assert_eq!(status, StatusCode::CREATED, "{:.300}", body.to_string());
        }
    }
    for id in &ids {
        let (_, kept) = site.send(Method::GET, &format!("/location/{id}"), None).await;
        assert_eq!((&kept["properties"]["version"], &kept["properties"]["n"]), (&json!(7), &json!(2)));
    }
    server.stop().await;
}

/// Readers as many as there may be, until `done`. Returns how many reads were answered, and how many were not.
async fn read_until(site: &Site, ids: &[u64], done: &AtomicBool) -> (usize, usize) {
    let (answered, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let reader = async |n: usize| {
        while !done.load(Ordering::Relaxed) {
            let id = ids[n % ids.len()];
            let path = match n % 3 {
                0 => format!("/location/{id}"),
                1 => format!("/location/{id}/history"),
                _ => "/location?perPage=20".to_owned(),
            };
            let (status, body) = site.send(Method::GET, &path, None).await;
            match status {
                StatusCode::OK => answered.fetch_add(1, Ordering::Relaxed),
                StatusCode::SERVICE_UNAVAILABLE => refused.fetch_add(1, Ordering::Relaxed),
                _ => panic!("{path}: {status} {body}"),
            };
        }
    };
    join_all((0..40).map(reader)).await;
    (answered.into_inner(), refused.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_keeps_its_connection_whatever_readers_do() {
    noise::expect(&NO_CONNECTION);
    // Connections are ended.
    noise::expect(&DATABASE_AWAY);
    let mysqld = Mysqld::started().await;
    let (admin, site) = limited(&mysqld, 10, &[QUIET]).await;
    let server = site.start().await;
    let ids = site.create(6).await;
    let done = AtomicBool::new(false);
    let write = async {
        let moved = json!({"geometry": point(1.0, 2.0)});
        // Until readers have all that are left.
        let started = Instant::now();
        while connections(&admin).await.len() < 10 {
            assert!(started.elapsed() < PATIENCE, "readers do not connect");
            sleep(Duration::from_millis(20)).await;
        }
        for _ in 0..3 {
            for id in connections(&admin).await {
                // It may have gone by itself.
                let _ = admin.execute_unprepared(&format!("KILL {id}")).await;
            }
            let killed = Instant::now();
            // Readers come first.
            while connections(&admin).await.len() < 10 {
                assert!(killed.elapsed() < PATIENCE, "readers do not come back");
                sleep(Duration::from_millis(20)).await;
            }
            for id in &ids {
                loop {
                    let (status, body) = put(&site, *id, moved.clone()).await;
                    if status == StatusCode::CREATED {
                        break;
                    }
                    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
                    assert!(killed.elapsed() < RESUMED_WITHIN, "writes do not come back: {body}");
                }
            }
            println!("written after {:?}", killed.elapsed());
            // Large changes go over another connection.
            let large = json!({"properties": {"filler": "x".repeat(40_000)}});
            while put(&site, ids[0], large.clone()).await.0 != StatusCode::CREATED {
                assert!(killed.elapsed() < RESUMED_WITHIN, "large writes do not come back");
            }
            let (status, body) = site.send(Method::GET, "/readyz", None).await;
            assert_eq!((status, &body["writes"]), (StatusCode::OK, &Value::Null), "{body}");
        }
        done.store(true, Ordering::Relaxed);
    };
    let ((answered, refused), ()) = tokio::join!(read_until(&site, &ids, &done), write);
    println!("{answered} reads answered, {refused} refused");
    assert!(
        answered > 100 * refused.max(1),
        "reads wait for a connection: {refused} of {answered} were refused"
    );
    server.stop().await;
}

/// However many ask; and what takes several connections does with what there are.
#[tokio::test(flavor = "multi_thread")]
async fn no_more_connections_are_made_than_are_allowed() {
    let mysqld = Mysqld::started().await;
    let (admin, site) = limited(&mysqld, 100, &[]).await;
    for allowed in [2, 5] {
        let setting = allowed.to_string();
        let settings = [&site.settings()[..], &[QUIET, ("DATABASE_CONNECTIONS", &setting)]].concat();
        let server = Process::start(&settings).await;
        let ids = site.create(6).await;
        let done = AtomicBool::new(false);
        let write = async {
            for round in 0..4 {
                let large = json!({"properties": {"n": round, "filler": "x".repeat(40_000)}});
                let moved = json!({"geometry": point(1.0, 2.0)});
                let bodies = ids.iter().flat_map(|id| [(*id, large.clone()), (*id, moved.clone())]);
                for (status, body) in join_all(bodies.map(|(id, body)| put(&site, id, body))).await {
                    assert_eq!(status, StatusCode::CREATED, "{:.300}", body.to_string());
                }
                for path in ["?bbox=0,0,9,9", "?near=1,2&radius=9", "?page=2&perPage=1"] {
                    let (status, body) = site.send(Method::GET, &format!("/location{path}"), None).await;
                    assert_eq!(status, StatusCode::OK, "{:.300}", body.to_string());
                }
                let count = connections(&admin).await.len();
                assert!(count <= allowed, "{count} connections");
            }
            done.store(true, Ordering::Relaxed);
        };
        let ((_, refused), ()) = tokio::join!(read_until(&site, &ids, &done), write);
        assert_eq!(refused, 0);
        server.stop().await;
    }
}
