//! Rights that end: whoever loses sight of a location is told, and is sent nothing more of it from a second
//! after, however they are connected and however badly they read. The others notice nothing.

mod races;
mod readers;
mod tokens;
mod unread;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use futures_util::future::{join, join_all};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};

use readers::{Audience, Reader};

use crate::{
    on_both_databases, on_one_database,
    support::{
        Db, NOWHERE, QUIET, TestDatabase, TestServer, answer,
        clients::{Client, Clients, KINDS},
        history::version,
        kernel::on_their_way,
        machine, point,
        polling::Polling,
        process::{Log, Process},
        proxy::Proxy,
        tokens::{KEY, Pass, in_ms, mint, mint_for, refusal, time_for, token},
        truth::Random,
        websocket::{Position, Seen, WebSocket},
    },
};

on_both_databases!(
    who_loses_a_right_is_told_and_sent_nothing_more_and_the_others_miss_nothing,
    a_deleted_location_is_heard_of_no_more,
);

on_one_database!(a_share_that_ends_ends_what_came_by_it);

/// From so long after a right has ended nothing more is handed over.
const WITHDRAWN: Duration = Duration::from_secs(1);

/// Longer than anything here takes on a busy machine; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(30);

const OWNER: u64 = 10;

const MEMBER: u64 = 20;

const STRANGER: u64 = 30;

/// The owner's location, whose every update has a few more bytes than these.
async fn create(server: &TestServer, bytes: usize) -> u64 {
    let body = json!({"geometry": point(0.5, 0.5), "properties": {"pad": "x".repeat(bytes)}});
    let made = Pass::user(OWNER).must(server, Method::POST, "/location", Some(body)).await;
    made["data"]["location"]["id"].as_u64().expect("an id")
}

/// Moves the owner's location; returns its version.
async fn moved(server: &TestServer, id: u64) -> u64 {
    version(&Pass::user(OWNER).mv(server, id).await)
}

async fn admit(server: &TestServer, id: u64, user: u64) {
    Pass::user(OWNER).grant(server, id, user, "viewer").await;
}

/// A share that ends after so long: its path, and what its guests show.
async fn share(server: &TestServer, id: u64, time: Duration) -> (String, Pass) {
    let body = json!({"expiresAt": in_ms(time.as_millis() as i64)});
    let share = Pass::user(OWNER).share(server, id, body).await;
    (format!("/location/{id}/shares/{}", share["id"]), Pass::of(&share))
}

/// Deletes something of the owner's; returns when that was answered.
async fn delete(server: &TestServer, path: &str) -> Instant {
    Pass::user(OWNER).must(server, Method::DELETE, path, None).await;
    Instant::now()
}

/// The owner moves a location so many times a second, until it is gone or that is enough.
struct Load {
    head: watch::Receiver<u64>,
    enough: Arc<AtomicBool>,
    writers: JoinSet<()>,
}

impl Load {
    fn start(server: &TestServer, id: u64, rate: u32) -> Self {
        let writers = rate.div_ceil(10);
        let (told, head) = watch::channel(1);
        let enough = Arc::<AtomicBool>::default();
        let mut tasks = JoinSet::new();
        for writer in 0..writers {
            let (http, told, enough) = (server.http.clone(), told.clone(), enough.clone());
            let (url, token) = (format!("{}/location/{id}", server.api), token(OWNER));
            let mut ticks = interval(Duration::from_secs(1) * writers / rate);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            tasks.spawn(async move {
                for turn in 0_u32.. {
                    ticks.tick().await;
                    if enough.load(Ordering::Relaxed) {
                        return;
                    }
                    let geometry = point(f64::from(writer) + 0.5, f64::from(turn % 1_000) / 1024.0 + 0.03125);
                    let body = json!({"geometry": geometry});
                    let answered = http.put(&url).bearer_auth(&token).json(&body).send().await;
                    let (status, body) = answer(answered.expect("an answer")).await;
                    if status == StatusCode::NOT_FOUND {
                        return;
                    }
                    assert_eq!(status, StatusCode::CREATED, "{body}");
                    let version = version(&body["data"]["updatedLocationResult"]);
                    told.send_modify(|head| *head = version.max(*head));
                }
            });
        }
        Self { head, enough, writers: tasks }
    }

    /// Waits for so many more versions.
    async fn wrote(&mut self, more: u64) {
        let goal = *self.head.borrow() + more;
        let waited = timeout(PATIENCE, self.head.wait_for(|head| *head >= goal)).await;
        waited.expect("writing goes on").expect("writers");
    }

    /// Returns the newest version.
    async fn stop(mut self) -> u64 {
        self.enough.store(true, Ordering::Relaxed);
        while let Some(ended) = self.writers.join_next().await {
            ended.expect("a writer that saw nothing wrong");
        }
        *self.head.borrow()
    }
}

/// 200 sockets at 50 updates a second; eight members and a share go, as many stay.
async fn who_loses_a_right_is_told_and_sent_nothing_more_and_the_others_miss_nothing(db: Db) {
    const GROUPS: usize = 9;
    let _share = machine::half().await;
    let (server, _log) = Process::serve(db, &[KEY, QUIET]).await;
    let clients = Clients::start();
    let id = create(&server, 0).await;
    let mut audience = Audience::new();
    let mut paths = Vec::new();
    for side in 0..2 {
        for group in 0..GROUPS {
            let (path, by) = if group == 0 {
                share(&server, id, Duration::from_secs(600)).await
            } else {
                let user = MEMBER + (side * GROUPS + group) as u64;
                admit(&server, id, user).await;
                (format!("/location/{id}/members/{user}"), Pass::user(user))
            };
            let sockets =
                (0..if group < 2 { 4 } else { 10 }).map(|_| Reader::websocket(&server.gateway, &by));
            audience.add(side * GROUPS + group, join_all(sockets).await, id);
            if group < 2 {
                audience.add(side * GROUPS + group, Reader::all(&clients, &server.gateway, &by).await, id);
            }
            if group == 2 {
                audience.add(side * GROUPS + group, [Reader::polling(&server.gateway, &by).await], id);
            }
            paths.push(path);
        }
    }
    let readers = audience.stories.len();
    assert!(readers >= 190, "{readers} sockets");

    let mut load = Load::start(&server, id, 50);
    load.wrote(50).await;
    let ended = join_all(paths[..GROUPS].iter().map(|path| delete(&server, path))).await;
    load.wrote(100).await;
    let head = load.stop().await;
    audience.last.send_replace(Some(head));
    let last = moved(&server, id).await;
    let stories = audience.stories().await;
    assert!(ended.iter().all(|at| at.elapsed() > WITHDRAWN));

    for (group, story) in stories {
        if group < GROUPS {
            let mut reader = story.check_closed(id, "revoked", ended[group]).await;
            assert_eq!(reader.refused(id).await, "not_found");
        } else {
            assert!(story.closed.is_none(), "group {group} is to stay");
            story.check_dense();
            assert_eq!(story.versions.last(), Some(&last));
        }
    }
    server.stop().await;
}

async fn a_share_that_ends_ends_what_came_by_it(db: Db) {
    let _share = machine::quarter().await;
    let (server, _log) = Process::serve(db, &[KEY, QUIET]).await;
    let clients = Clients::start();
    let id = create(&server, 0).await;
    let (_, longer) = share(&server, id, Duration::from_secs(600)).await;
    let mut audience = Audience::new();
    audience.add(1, [Reader::websocket(&server.gateway, &longer).await], id);
    let time = time_for(Reader::all(&clients, &server.gateway, &longer)).await;
    // Shares end at a whole millisecond.
    let ends = Instant::now() + time - Duration::from_millis(1);
    let (_, brief) = share(&server, id, time).await;
    audience.add(0, Reader::all(&clients, &server.gateway, &brief).await, id);
    let path = format!("/location/{id}");
    assert_eq!(brief.get(&server, &path).await.0, StatusCode::OK);

    let mut load = Load::start(&server, id, 50);
    sleep_until(ends).await;
    // Ended at last by the time that its own answer took.
    let ended = Instant::now() + Duration::from_millis(200);
    load.wrote(75).await;
    sleep_until(ended + WITHDRAWN).await;
    let head = load.stop().await;
    audience.last.send_replace(Some(head));
    let last = moved(&server, id).await;
    for (group, story) in audience.stories().await {
        if group == 0 {
            let early = story.closed.as_ref().map(|(_, at)| ends.saturating_duration_since(*at));
            assert_eq!(early, Some(Duration::ZERO), "told before it was over, or not at all");
            let mut reader = story.check_closed(id, "expired", ended).await;
            assert_eq!(reader.refused(id).await, "not_found");
        } else {
            story.check_dense();
            assert_eq!((story.versions.last(), story.closed), (Some(&last), None));
        }
    }

    for kind in KINDS {
        assert_eq!(refusal(&mut brief.open(&clients, kind, &server.gateway)).await, "share_expired");
    }
    for path in [path.clone(), format!("{path}/history")] {
        let (status, body) = brief.get(&server, &path).await;
        assert_eq!((status, &body["code"]), (StatusCode::UNAUTHORIZED, &json!("share_expired")), "{path}");
    }
    let Pass::Share(secret, None) = &brief else { unreachable!() };
    let (status, body) = server.get(&format!("{path}?share={secret}")).await;
    assert_eq!((status, &body["code"]), (StatusCode::UNAUTHORIZED, &json!("share_expired")));
    server.stop().await;
}

async fn a_deleted_location_is_heard_of_no_more(db: Db) {
    let _share = machine::quarter().await;
    let (server, _log) = Process::serve(db, &[KEY, QUIET]).await;
    let clients = Clients::start();
    let id = create(&server, 0).await;
    admit(&server, id, MEMBER).await;
    let (_, guest) = share(&server, id, Duration::from_secs(600)).await;
    let mut audience = Audience::new();
    for (group, by) in [Pass::user(OWNER), Pass::user(MEMBER), guest].into_iter().enumerate() {
        audience.add(group, Reader::all(&clients, &server.gateway, &by).await, id);
    }
    let mut load = Load::start(&server, id, 50);
    load.wrote(30).await;
    let ended = delete(&server, &format!("/location/{id}")).await;
    load.stop().await;
    // Whatever is late is to have come.
    sleep_until(ended + WITHDRAWN).await;
    audience.last.send_replace(Some(0));
    for (_, story) in audience.stories().await {
        let mut reader = story.check_closed(id, "deleted", ended).await;
        assert_eq!(reader.refused(id).await, "not_found");
    }
    server.stop().await;
}
