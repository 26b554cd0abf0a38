//! Many writers at once: they share transactions, and nobody notices except by the clock.

mod contents;
mod locks;
mod refusals;

use std::{
    cell::Cell,
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use georoom::domain::error::Code;
use reqwest::{Method, StatusCode};
use sea_orm::{ConnectionTrait, DatabaseBackend, DbErr, Statement, TransactionTrait};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::{
    on_both_databases,
    support::{
        Db, QUIET, TestDatabase, TestServer,
        administrator::{administrator, kill_connections},
        answer,
        clients::{Client, Clients},
        features::{geometries, same},
        history::version,
        load::Load,
        machine,
        noise::{self, DATABASE_AWAY, FAILED},
        point,
        polling::Polling,
        problem::Problem,
        process::Process,
        proxy::Proxy,
        truth::Random,
    },
};

on_both_databases!(two_servers_on_one_database_count_the_same_versions, answers_history_and_broadcasts_agree,);

/// Longer than anything here takes on a busy machine; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// New locations, lowest id first.
async fn make(server: &TestServer, count: usize) -> Vec<u64> {
    let mut ids = join_all((0..count).map(|_| server.create_at(0.5, 0.5))).await;
    ids.sort_unstable();
    ids
}

/// A client in each of the rooms.
async fn members(clients: &Clients, server: &TestServer, ids: &[u64]) -> Vec<Client> {
    let mut members = Vec::new();
    for id in ids {
        let mut member = clients.connect(&server.gateway).await;
        assert_eq!(member.join(*id).await["version"], 1);
        members.push(member);
    }
    members
}

/// Each member was sent its room's history after the creation, and nothing else.
async fn assert_sent(server: &TestServer, members: &mut [Client], ids: &[u64]) {
    for (member, id) in members.iter_mut().zip(ids) {
        let history = server.history(*id).await;
        let sent = member.follow(*id, 1, history.len() as u64).await;
        for (chat, kept) in sent.iter().zip(&history[1..]) {
            assert_eq!((&chat["message"], &chat["userId"]), (kept, &kept["properties"]["updatedBy"]));
        }
        assert_eq!(member.drain().await, Vec::<Value>::new());
    }
}

/// The same where versions are large: what was sent is of the history and ends with its newest.
async fn assert_newest_sent(server: &TestServer, members: &mut [Client], ids: &[u64]) {
    for (member, id) in members.iter_mut().zip(ids) {
        let history = server.history(*id).await;
        for chat in member.follow_newest(*id, 1, history.len() as u64).await {
            let kept = &history[chat["version"].as_u64().expect("a version") as usize - 1];
            assert_eq!((&chat["message"], &chat["userId"]), (kept, &kept["properties"]["updatedBy"]));
        }
        assert_eq!(member.drain().await, Vec::<Value>::new());
    }
}

async fn two_servers_on_one_database_count_the_same_versions(db: Db) {
    let (server, _log) = Process::serve(db, &[QUIET]).await;
    let second = Process::start(&[("DATABASE_URL", &server.database.url), QUIET]).await;
    let ids = make(&server, 20).await;
    let apis = [server.api.as_str(), &second.api];
    let load = Load::new(&server, &apis, &ids);
    load.run(64, |own| own < 30).await;
    assert_eq!(load.check().await.answered, 64 * 30);
    assert_eq!(server.history_from(&second.api, ids[0]).await, server.history(ids[0]).await);
    second.signal("TERM").await;
    assert_eq!(second.ended().await, Some(0));
    server.stop().await;
}

/// Waits until no dead connection is left among those that a server reads with, each of which may be
/// found out by a 503.
async fn until_read(server: &TestServer, id: u64) {
    let started = Instant::now();
    let mut in_a_row = 0;
    while in_a_row < 40 {
        let (status, body) = server.get(&format!("/location/{id}")).await;
        in_a_row = if status == StatusCode::OK { in_a_row + 1 } else { 0 };
        assert!([StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE].contains(&status), "{status} {body}");
        assert!(started.elapsed() < PATIENCE, "reads do not come back");
    }
}

/// A KILL may hit a COMMIT before it is carried out, or its answer after that: who tries again blindly
/// applies an update twice, who does not loses one.
#[tokio::test(flavor = "multi_thread")]
async fn connections_killed_under_load_lose_nothing_and_repeat_nothing() {
    noise::expect(&DATABASE_AWAY);
    let settings = [("HISTORY_VERSIONS", "1000000"), QUIET];
    let (server, _log) = Process::serve(Db::MySql, &settings).await;
    let second =
        Process::start(&[&[("DATABASE_URL", server.database.url.as_str())], &settings[..]].concat()).await;
    let ids = make(&server, 20).await;
    let apis = [server.api.as_str(), &second.api];
    let load = Load::new(&server, &apis, &ids);
    let admin = administrator().await;
    let done = AtomicBool::new(false);
    let kill = async {
        let mut random = Random(1);
        let mut killed = 0;
        for _ in 0..30 {
            load.answers(1 + random.below(120) as u64).await;
            killed += kill_connections(&admin, |_, name| name == Some(&server.database.name)).await;
        }
        load.answers(200).await;
        done.store(true, Ordering::Relaxed);
        killed
    };
    let ((), killed) = tokio::join!(load.run(64, |_| !done.load(Ordering::Relaxed)), kill);
    assert!(killed >= 30, "{killed}");
    until_read(&server, ids[0]).await;
    load.check().await;
    admin.close().await.expect("close");
    second.signal("TERM").await;
    assert_eq!(second.ended().await, Some(0));
    server.stop().await;
}

/// The room hears of every version all the same, also of those whose callers could not be told.
#[tokio::test(flavor = "multi_thread")]
async fn commits_lost_under_load_are_neither_repeated_nor_forgotten() {
    let database = TestDatabase::create(Db::MySql).await;
    let proxy = Proxy::start(&database, None).await;
    let settings = [("DATABASE_URL", proxy.url.as_str()), ("HISTORY_VERSIONS", "1000000"), QUIET];
    let (server, _log) = Process::serve_on(database, &settings).await;
    let clients = Clients::start();
    let ids = make(&server, 12).await;
    let mut members = members(&clients, &server, &ids).await;
    let apis = [server.api.as_str()];
    let load = Load::new(&server, &apis, &ids);
    let done = AtomicBool::new(false);
    let lose = async {
        proxy.lose_one_in(4);
        let mut losses = proxy.losses();
        let waited = timeout(PATIENCE, losses.wait_for(|losses| *losses >= 40)).await;
        drop(waited.expect("commits are lost and writing goes on").expect("a proxy"));
        proxy.lose_one_in(0);
        load.answers(200).await;
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(load.run(48, |_| !done.load(Ordering::Relaxed)), lose);
    load.check().await;
    assert_sent(&server, &mut members, &ids).await;
    server.stop().await;
    proxy.cut().await;
}

async fn answers_history_and_broadcasts_agree(db: Db) {
    let (server, _log) = Process::serve(db, &[QUIET]).await;
    let clients = Clients::start();
    let ids = make(&server, 5).await;
    let mut members = members(&clients, &server, &ids).await;
    let apis = [server.api.as_str()];
    let load = Load::new(&server, &apis, &ids);
    load.run(64, |own| own < 20).await;
    let report = load.check().await;
    assert_eq!((report.answered, report.refused), (64 * 20, 0));
    assert_sent(&server, &mut members, &ids).await;
    server.stop().await;
}

/// On a disk that is slow to commit everybody who has come meanwhile goes with the next commit.
#[tokio::test(flavor = "multi_thread")]
async fn changes_that_wait_share_a_commit() {
    const CALLERS: usize = 256;
    const EACH: u64 = 5;
    let database = TestDatabase::create(Db::MySql).await;
    let proxy = Proxy::start(&database, None).await;
    let settings = [("DATABASE_URL", proxy.url.as_str()), QUIET];
    let (server, _log) = Process::serve_on(database, &settings).await;
    let ids = make(&server, 64).await;
    let apis = [server.api.as_str()];
    let load = Load::new(&server, &apis, &ids);
    proxy.slow_down(Duration::from_millis(20));
    let before = proxy.counts();
    load.run(CALLERS, |own| own < EACH).await;
    let after = proxy.counts();
    proxy.slow_down(Duration::ZERO);
    let updates = CALLERS as u64 * EACH;
    let (commands, commits) = (after.0 - before.0, after.1 - before.1);
    assert!((1..=updates / 16).contains(&commits), "{commits} commits for {updates} updates");
    assert!(commands <= updates / 4, "{commands} commands for {updates} updates");
    assert_eq!(load.check().await.answered, updates);
    server.stop().await;
    proxy.cut().await;
}

/// Nobody waits for company: a change is committed as it comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_alone_waits_for_no_other() {
    const TIMES: u64 = 25;
    let database = TestDatabase::create(Db::MySql).await;
    let proxy = Proxy::start(&database, None).await;
    let settings = [("DATABASE_URL", proxy.url.as_str()), QUIET];
    let (server, _log) = Process::serve_on(database, &settings).await;
    let (id, other) = (server.create_at(0.5, 0.5).await, server.create_at(0.5, 0.5).await);
    let (_, before) = proxy.counts();
    for turn in 0..TIMES {
        server.move_to(id, 0.5, turn as f64).await;
    }
    let (_, after) = proxy.counts();
    assert_eq!(after - before, TIMES);
    // Far longer than a commit takes, and shorter than it is worth waiting for company. On a busy machine some changes
    // are still on their way when the next one comes, but not all.
    let later = async || {
        sleep(Duration::from_millis(40)).await;
        server.move_to(other, 0.5, 0.5).await
    };
    let mut apart = 0;
    for turn in 0..TIMES {
        let (_, before) = proxy.counts();
        tokio::join!(server.move_to(id, 0.5, turn as f64), later());
        apart += u64::from(proxy.counts().1 - before == 2);
    }
    assert!(apart > 0, "each change waited for the next");
    server.stop().await;
    proxy.cut().await;
}
