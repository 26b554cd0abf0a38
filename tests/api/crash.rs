//! What is promised must outlive the process: kill -9, SIGTERM, and everybody coming back at once.
//!
//! The clients are the stock ones, which reconnect by themselves and join with the last version they have
//! seen. `GEOROOM_KILLS` says how often the server is killed; `make soak` asks for more than `make test`.

use std::{collections::BTreeMap, pin::pin, time::Duration};

use serde_json::Value;
use tokio::time::{Instant, timeout};

use crate::{
    on_both_databases,
    support::{
        Db, QUIET,
        clients::{KINDS, VERSIONS},
        followers::{Entry, Followers},
        machine,
        process::Log,
        promises::check_promises,
        setting,
        site::Site,
        truth::Random,
        writers::{Outage, Writers},
    },
};

on_both_databases!(
    kill_9_under_load_loses_nothing_acknowledged_and_nobody_misses_a_version,
    sigterm_under_load_sends_all_that_was_acknowledged_before_the_goodbye,
    sigterm_under_load_waits_for_those_who_poll,
    a_thousand_sockets_come_back_at_once_and_share_the_reads,
    joins_into_the_middle_of_a_stream_see_neither_hole_nor_repeat,
    five_thousand_joins_at_once_share_the_reads_and_hold_up_nobody,
);

/// In the tests of many sockets.
const ROOMS: usize = 20;

/// Says when the server is ready, and each read made for a room.
const READS: (&str, &str) = ("RUST_LOG", "warn,georoom::server=info,georoom::gateway=debug");

/// That the database was read for rooms, but not much oftener than there are rooms.
async fn check_reads(log: Log) {
    let mut by_room: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for mut line in log.whole().await {
        let target = line["target"].as_str().expect("a target");
        if target.starts_with("georoom::gateway") && line["message"] == "versions were read for a room" {
            by_room.entry(line["room"].to_string()).or_default().push(line.take());
        }
    }
    let reads: usize = by_room.values().map(Vec::len).sum();
    println!("{reads} reads for {ROOMS} rooms");
    let most = by_room.values().max_by_key(|reads| reads.len());
    assert!((1..=3 * ROOMS).contains(&reads), "{reads} reads for {ROOMS} rooms; for one of them: {most:#?}");
}

async fn kill_9_under_load_loses_nothing_acknowledged_and_nobody_misses_a_version(db: Db) {
    let _share = machine::half().await;
    let kills = setting("GEOROOM_KILLS", 5);
    let mut random = Random::unseeded();
    let site = Site::new(db, &[QUIET]).await;
    let mut server = site.start().await;
    let locations = site.create(10).await;
    let mut followers = Followers::start(1, &site.gateway);
    for n in 0..20 {
        // In three rooms each; from the beginning, or from now on.
        let since = (n % 2 == 0).then_some(0);
        let rooms: Vec<Entry> = (0..3).map(|at| (locations[(n + at * 3) % 10], since)).collect();
        followers.add(KINDS[n % KINDS.len()], &rooms);
    }
    followers.reach(&BTreeMap::new()).await;

    let mut writers = Writers::start(&site.api, &locations, 0..6, Outage::GoOn, None);
    for _ in 0..kills {
        // Also before everybody is back from the last time.
        let more = 10 + random.below(300);
        writers.wrote(more).await;
        println!("killed after {more} more answers");
        server.kill().await;
        server = site.start().await;
    }
    writers.wrote(100).await;
    followers.reach(&writers.heads()).await;
    let written = writers.stop().await;
    assert!(written.unanswered.len() >= kills, "the kills hit moves under way: {:?}", written.unanswered);

    followers.reach(&site.heads(&locations).await).await;
    let followed = followers.summary().await;
    for follower in &followed {
        assert!(follower.connects > 1, "{follower:#?}");
        assert!(follower.rooms.iter().all(|room| room.recovered > 0), "{follower:#?}");
    }
    check_promises(&site, &written, &followed).await;
    server.stop().await;
    site.drop().await;
}

async fn sigterm_under_load_sends_all_that_was_acknowledged_before_the_goodbye(db: Db) {
    stop_under_load(db, "websocket").await;
}

/// Who polls is not there all the time.
async fn sigterm_under_load_waits_for_those_who_poll(db: Db) {
    stop_under_load(db, "polling").await;
}

async fn stop_under_load(db: Db, transport: &'static str) {
    let _share = machine::half().await;
    let site = Site::new(db, &[QUIET]).await;
    let server = site.start().await;
    let locations = site.create(4).await;
    let mut followers = Followers::start(1, &site.gateway);
    for n in 0..12 {
        let rooms: Vec<Entry> = locations.iter().map(|id| (*id, Some(0))).collect();
        followers.add((VERSIONS[n % VERSIONS.len()], transport), &rooms);
    }
    followers.reach(&BTreeMap::new()).await;

    // Only the server's end stops them.
    let mut writers = Writers::start(&site.api, &locations, 0..6, Outage::GiveUp, None);
    writers.wrote(300).await;
    server.stop().await;
    let mut written = writers.ended().await;
    // What was under way was finished and answered: the rest was never begun.
    written.unanswered.clear();

    let server = site.start().await;
    let committed = site.heads(&locations).await;
    followers.reach(&committed).await;
    // By now everybody has been disconnected once, and has come back by themselves.
    let acknowledged = written.heads();
    for follower in followers.summary().await {
        assert_eq!((follower.connects, follower.reasons.len()), (2, 1), "{follower:#?}");
        for room in &follower.rooms {
            let seen = room.at_disconnect.expect("a version");
            assert!(seen >= acknowledged[&room.id], "{acknowledged:?} acknowledged: {follower:#?}");
            assert_eq!((room.joins, room.recovered), (2, 2), "{follower:#?}");
        }
    }
    let mut writers = Writers::start(&site.api, &locations, 6..12, Outage::GiveUp, None);
    writers.wrote(50).await;
    let later = writers.stop().await;
    written.answered.extend(later.answered);
    assert_eq!(later.unanswered, []);
    followers.reach(&written.heads()).await;
    check_promises(&site, &written, &followers.summary().await).await;
    server.stop().await;
    site.drop().await;
}

async fn a_thousand_sockets_come_back_at_once_and_share_the_reads(db: Db) {
    let _share = machine::half().await;
    let site = Site::new(db, &[READS]).await;
    let server = site.start().await;
    let locations = site.create(ROOMS).await;
    let mut followers = Followers::start(2, &site.gateway);
    for n in 0..1_000 {
        // Most of them as most are; the other kinds are in every room, too.
        let kind = KINDS[if n % 10 == 0 { n / 10 % KINDS.len() } else { 0 }];
        followers.add(kind, &[(locations[n / 10 % ROOMS], None)]);
    }
    followers.reach(&site.move_all(&locations).await).await;

    server.kill().await;
    let server = site.start().await;
    let up = Instant::now();
    // While they are on their way: no further update tells them that they have missed one.
    let heads = site.move_all(&locations).await;
    followers.reach_within(Duration::from_secs(10).saturating_sub(up.elapsed()), &heads).await;
    println!("everybody was back after {:?}", up.elapsed());
    for follower in followers.summary().await {
        assert_eq!((follower.connects, follower.reasons.len()), (2, 1), "{follower:#?}");
    }
    check_reads(server.stop().await).await;
    site.drop().await;
}

async fn joins_into_the_middle_of_a_stream_see_neither_hole_nor_repeat(db: Db) {
    let _share = machine::quarter().await;
    let site = Site::new(db, &[QUIET]).await;
    let server = site.start().await;
    let locations = site.create(1).await;
    let id = locations[0];
    // Some have missed more than a socket may have unread.
    let mut early = Writers::start(&site.api, &locations, 4..8, Outage::GiveUp, None);
    early.wrote(400).await;
    let early = early.stop().await;
    let mut random = Random::unseeded();
    let mut followers = Followers::start(1, &site.gateway);
    for n in 0..200 {
        followers.add(KINDS[n % KINDS.len()], &[]);
    }
    followers.reach(&BTreeMap::new()).await;

    // Not faster than two hundred can read, in one process on a busy machine.
    let pace = Some(Duration::from_millis(200));
    let mut writers = Writers::start(&site.api, &locations, 0..4, Outage::GiveUp, pace);
    let mut sinces = Vec::new();
    for n in 0..200 {
        writers.wrote(1).await;
        let seen = writers.heads()[&id];
        let since = match n % 4 {
            0 => Some(0),
            1 => Some(seen - random.below(seen.min(50) as usize) as u64),
            _ => None,
        };
        followers.enter(n, &[(id, since)]);
        sinces.push(since);
        if n % 10 == 9 {
            followers.cut(random.below(n));
        }
    }
    writers.wrote(20).await;
    let mut written = writers.stop().await;
    written.answered.extend(early.answered);
    assert_eq!(written.unanswered, []);
    followers.reach(&written.heads()).await;
    let followed = followers.summary().await;
    for (follower, since) in followed.iter().zip(sinces) {
        if let Some(since) = since {
            assert_eq!(follower.rooms[0].first, Some(since + 1), "{follower:#?}");
        }
    }
    assert!(followed.iter().any(|follower| follower.connects > 1), "some were cut off");
    check_promises(&site, &written, &followed).await;
    server.stop().await;
    site.drop().await;
}

async fn five_thousand_joins_at_once_share_the_reads_and_hold_up_nobody(db: Db) {
    let _share = machine::half().await;
    let site = Site::new(db, &[READS]).await;
    let server = site.start().await;
    let locations = site.create(ROOMS).await;
    let other = site.create(1).await[0];
    let mut writers = Writers::start(&site.api, &locations, 0..8, Outage::GiveUp, None);
    writers.wrote(15 * ROOMS).await;
    let written = writers.stop().await;
    let heads = written.heads();
    server.stop().await;

    // Nobody has been here since the start: all rooms are cold.
    let server = site.start().await;
    let mut random = Random::unseeded();
    let mut followers = Followers::start(2, &site.gateway);
    for _ in 0..500 {
        followers.add(KINDS[0], &[]);
    }
    followers.reach(&BTreeMap::new()).await;
    for n in 0..500 {
        let mut rooms: Vec<Entry> = Vec::new();
        for at in 0..10 {
            let id = locations[(n + at) % ROOMS];
            rooms.push((id, Some(random.below(heads[&id] as usize) as u64)));
        }
        followers.enter(n, &rooms);
    }
    let started = Instant::now();
    let mut answered = 0;
    {
        let mut there = pin!(followers.reach(&heads));
        loop {
            let get = timeout(Duration::from_secs(3), site.get(other));
            tokio::select! {
                () = &mut there => break,
                answer = get => drop(answer.expect("an answer in time")),
            }
            answered += 1;
        }
    }
    println!("5,000 joins took {:?}; {answered} other requests were answered", started.elapsed());
    assert!(answered > 0);
    let followed = followers.summary().await;
    assert_eq!(followed.iter().map(|follower| follower.rooms.len()).sum::<usize>(), 5_000);
    for room in followed.iter().flat_map(|follower| &follower.rooms) {
        assert_eq!((room.joins, room.recovered), (1, 1), "{room:#?}");
    }
    check_promises(&site, &written, &followed).await;
    check_reads(server.stop().await).await;
    site.drop().await;
}
