//! Divides the machine between tests that run side by side in one process.
//!
//! Most tests leave both cores idle while they wait, so several run at once, each with one [`Share`]. A test that makes
//! as much load as the machine bears, or that measures how soon something happens, first takes a quarter, a half or
//! most of the shares. Shares are handed out in the order in which they are asked for, so that a test that wants many is not overtaken
//! for ever. None takes all, since until the last of the others ends the machine would do nothing.

use std::{
    collections::HashMap,
    env,
    fs::File,
    io::Write,
    path::Path,
    sync::{Arc, Mutex, PoisonError, Weak},
    thread,
    time::{Duration, Instant},
};

use tokio::{
    runtime::{Handle, Id},
    sync::{OnceCell, Semaphore, SemaphorePermit},
};

/// How many tests that asked for nothing run at the same time. `RUST_TEST_THREADS` is higher, because a test that waits
/// for its share is one of libtest's threads already.
const SHARES: u32 = 8;

static FREE: Semaphore = Semaphore::const_new(SHARES as usize);

/// The share of each test that has one. Tests are told apart by their runtimes.
static TAKEN: Mutex<Option<HashMap<Id, Weak<Share>>>> = Mutex::new(None);

/// The part of the machine that one test has, until the last holder drops it.
pub struct Share(OnceCell<SemaphorePermit<'static>>);

/// Waits for one share, unless the running test has some already.
pub async fn share() -> Arc<Share> {
    take(1).await
}

/// Waits until the running test has a quarter of the machine. To be called before the test starts anything.
pub async fn quarter() -> Arc<Share> {
    take_first(SHARES / 4).await
}

/// Waits until the running test has half of the machine. To be called before the test starts anything.
pub async fn half() -> Arc<Share> {
    take_first(SHARES / 2).await
}

/// Waits until the running test has three quarters of the machine. To be called before the test starts anything.
pub async fn most() -> Arc<Share> {
    take_first(SHARES / 4 * 3).await
}

async fn take_first(count: u32) -> Arc<Share> {
    let share = take(count).await;
    let taken = share.0.get().map(SemaphorePermit::num_permits);
    assert_eq!(taken, Some(count as usize), "the test has started something before");
    share
}

async fn take(count: u32) -> Arc<Share> {
    let share = {
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = taken.get_or_insert_default();
        taken.retain(|_, share| share.strong_count() > 0);
        let test = Handle::current().id();
        taken.get(&test).and_then(Weak::upgrade).unwrap_or_else(|| {
            let share = Arc::new(Share(OnceCell::new()));
            taken.insert(test, Arc::downgrade(&share));
            share
        })
    };
    // All servers of a test wait together: were each to wait in the queue, one could stand behind a test that waits for
    // this test to end.
    let began = Instant::now();
    let permit = || async { FREE.acquire_many(count).await.expect("never closed") };
    share.0.get_or_init(permit).await;
    note_wait(began.elapsed());
    share
}

/// Tells `tests/services/run` how long a test has waited, which libtest takes for a part of the test.
fn note_wait(time: Duration) {
    let (Some(folder), Some(test)) = (env::var_os("TEST_TIMES"), thread::current().name().map(str::to_owned))
    else {
        return;
    };
    let file = File::options().create(true).append(true).open(Path::new(&folder).join("waited"));
    let line = format!("waited {test} <{:.3}s>\n", time.as_secs_f64());
    // In one write, since tests write side by side. The list of the slowest tests is worth no failure.
    let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
}
