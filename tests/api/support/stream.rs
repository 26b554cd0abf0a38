//! A stream of updates that lasts as long as a test needs it.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use tokio::{select, time::sleep};

use super::{
    TestServer,
    clients::{Client, Clients},
    history::version,
};

/// No writer goes on while somebody who follows has so many versions to read: a machine that is slow to read would be
/// passed over after a thousand.
const MAX_UNREAD: u64 = 200;

/// Four writers move a location until `act` is done, but no faster than everybody who follows; `seen` has the newest
/// version that each has seen. Returns what `act` returns and the last version.
pub async fn amid_a_stream<T>(
    server: &TestServer,
    id: u64,
    seen: &[AtomicU64],
    act: impl Future<Output = T>,
) -> (T, u64) {
    let done = AtomicBool::new(false);
    let head = AtomicU64::new(1);
    let write = async |writer: u32| {
        while !done.load(Ordering::Relaxed) {
            let slowest = seen.iter().map(|seen| seen.load(Ordering::Relaxed)).min().expect("followers");
            if head.load(Ordering::Relaxed) > slowest.saturating_add(MAX_UNREAD) {
                sleep(Duration::from_millis(1)).await;
                continue;
            }
            let moved = server.move_to(id, f64::from(writer) + 0.5, 0.5).await;
            head.fetch_max(version(&moved), Ordering::Relaxed);
        }
    };
    let act = async {
        let result = act.await;
        done.store(true, Ordering::Relaxed);
        result
    };
    let (result, ..) = tokio::join!(act, write(1), write(2), write(3), write(4));
    (result, head.into_inner())
}

/// The same for clients that do not read in the meantime: a witness beside them, in the same process, does.
pub async fn amid_a_witnessed_stream<T>(
    server: &TestServer,
    clients: &Clients,
    id: u64,
    act: impl Future<Output = T>,
) -> (T, u64) {
    let mut witness = clients.connect(&server.gateway).await;
    let first = witness.join(id).await["version"].as_u64().expect("a version");
    let seen = [AtomicU64::new(first)];
    let act = async {
        select! {
            result = act => result,
            () = follow(&mut witness, &seen[0]) => unreachable!("it follows for ever"),
        }
    };
    amid_a_stream(server, id, &seen, act).await
}

async fn follow(witness: &mut Client, seen: &AtomicU64) {
    loop {
        let chat = witness.event("chat").await;
        seen.store(chat["version"].as_u64().expect("a version"), Ordering::Relaxed);
    }
}
