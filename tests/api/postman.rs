//! The Postman collection of the documentation, run by newman against a running server.

use serde_json::Value;
use tokio::process::Command;

use crate::{
    on_both_databases, on_one_database,
    support::{Db, TestServer, nginx::Nginx},
};

on_both_databases!(the_collection_is_green);

on_one_database!(the_collection_is_green_through_nginx);

const NEWMAN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/node_modules/newman/bin/newman.js");
const COLLECTION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/georoom.postman_collection.json");

async fn the_collection_is_green(db: Db) {
    let server = TestServer::start(db).await;
    run(&server, &server.api).await;
    server.stop().await;
}

async fn the_collection_is_green_through_nginx(db: Db) {
    let server = TestServer::start(db).await;
    let nginx = Nginx::start(&server).await;
    run(&server, &format!("{}/api", nginx.url)).await;
    server.stop().await;
}

async fn run(server: &TestServer, api: &str) {
    let report = std::env::temp_dir().join(format!("georoom_newman_{}.json", server.addrs.0.port()));
    let newman = Command::new("node")
        .args([NEWMAN, "run", COLLECTION, "--color", "off", "--reporters", "cli,json"])
        .args(["--env-var", &format!("baseUrl={api}"), "--timeout-request", "30000"])
        .arg("--reporter-json-export")
        .arg(&report)
        .kill_on_drop(true)
        .output()
        .await
        .expect("node");
    let said = String::from_utf8_lossy(&newman.stdout);
    assert!(newman.status.success(), "{said}{}", String::from_utf8_lossy(&newman.stderr));

    let text = std::fs::read(&report).expect("newman's report");
    std::fs::remove_file(&report).expect("the test's own file");
    let report: Value = serde_json::from_slice(&text).expect("JSON");
    let (requests, assertions) = (&report["run"]["stats"]["requests"], &report["run"]["stats"]["assertions"]);
    for stats in [requests, assertions] {
        assert!(stats["total"].as_u64() > Some(0), "{stats}");
        assert_eq!((&stats["failed"], &stats["pending"]), (&0.into(), &0.into()), "{stats}");
    }
    // Of this server, not of the default address: each run makes one location.
    let url = &report["run"]["executions"][0]["request"]["url"];
    assert_eq!(url["port"], api.rsplit(':').next().and_then(|rest| rest.split('/').next()).expect("a port"));
    println!("newman: {} requests, {} assertions", requests["total"], assertions["total"]);
}
