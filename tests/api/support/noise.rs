//! The WARN and ERROR lines of every server that the tests start. A healthy server logs none: a line that its test has
//! not announced ([`expect`]) fails the test when the server ends.
//!
//! Tests run side by side in one process, each with a tokio runtime of its own. The runtime a line was logged in says
//! which test it belongs to, also where the server runs inside this process.

use std::{
    collections::HashMap,
    io::{self, Write},
    sync::{LazyLock, Mutex, MutexGuard, Once, PoisonError},
    thread,
};

use serde_json::Value;
use tokio::runtime::{Handle, Id};
use tracing_subscriber::filter::LevelFilter;

/// Messages that the settings of a healthy server cause.
const ALWAYS: [&str; 1] =
    ["open mode: no authentication; everyone who reaches these ports may do everything"];

/// The refusal of a request or an event for which something failed.
pub const FAILED: &str = "failed";
/// What a server says that cannot reach its database, or loses connections to it. [`super::proxy::Proxy`] and
/// [`super::mysqld::Mysqld`] announce it when they break something.
pub const DATABASE_AWAY: [&str; 14] = [
    FAILED,
    "DATABASE_URL: the database cannot be used yet; trying again",
    "acquired connection, but time to acquire exceeded slow threshold",
    "an answer was broken off",
    "error from `after_release`",
    "error from `before_acquire`",
    "error occurred while testing the connection on-release",
    "error returned from after_connect",
    "history could not be removed; trying again",
    "it stays unknown whether a COMMIT was carried out",
    "it is not known yet whether a COMMIT was carried out",
    "notifications could not be removed; trying again",
    "the database did not answer when its connections were closed",
    "uses of share links and names of users were not written",
];
/// What a server says whose MySQL grants it fewer connections than it wants, and what it says once it has none.
pub const NO_CONNECTION: [&str; 2] = [
    FAILED,
    "MySQL grants no further connection, so a reader gives up its own; set DATABASE_CONNECTIONS lower",
];
/// What a server says at its end where clients have taken nothing of what they were sent.
pub const CUT_OFF: &str = "sockets that read nothing were disconnected when the server stopped";
/// What it says where somebody has sent no more than a part of a request.
pub const IN_FLIGHT: &str = "requests were still in flight when the server stopped";
/// What it says of a row that somebody else has written into the database.
pub const BROKEN_ROW: [&str; 2] = [FAILED, "the row of a location cannot be read; lists leave it out"];

/// What is known of one test.
#[derive(Default)]
struct Test {
    /// Messages that the test causes.
    expected: Vec<&'static str>,
    /// WARN and ERROR lines of its servers.
    lines: Vec<Value>,
    /// A server of the test is watched. Otherwise this is a runtime of the server itself.
    is_watched: bool,
}

static TESTS: LazyLock<Mutex<HashMap<Id, Test>>> = LazyLock::new(Mutex::default);

fn tests() -> MutexGuard<'static, HashMap<Id, Test>> {
    // A test that fails while it holds the lock leaves nothing half done.
    TESTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Announces messages that the running test causes, before or after they are logged.
pub fn expect(messages: &[&'static str]) {
    tests().entry(Handle::current().id()).or_default().expected.extend(messages);
}

/// Notes a line of a server that a test has started in this runtime.
pub fn record(test: Id, line: &Value) {
    if line["level"] == "WARN" || line["level"] == "ERROR" {
        tests().entry(test).or_default().lines.push(line.clone());
    }
}

/// Watches a server. Dropped once the server has ended, it panics if the log has a line that was not announced.
pub struct Watch(Id);

impl Watch {
    pub fn start() -> Self {
        static COLLECTING: Once = Once::new();
        COLLECTING.call_once(|| {
            let lines = tracing_subscriber::fmt().json().flatten_event(true).with_writer(|| Sink);
            lines.with_max_level(LevelFilter::WARN).init();
        });
        let id = Handle::current().id();
        tests().entry(id).or_default().is_watched = true;
        Self(id)
    }

    /// Takes the lines that nobody has announced, those of the server's own runtimes included.
    fn take_unexpected(&self) -> Vec<Value> {
        let tests = &mut *tests();
        let expected: Vec<_> = tests.values().flat_map(|test| test.expected.clone()).collect();
        let mut unexpected = Vec::new();
        for (id, test) in tests {
            let expected = match () {
                () if *id == self.0 => &test.expected,
                () if !test.is_watched => &expected,
                () => continue,
            };
            let is_expected = |line: &Value| {
                let message = line["message"].as_str().unwrap_or_default();
                ALWAYS.contains(&message) || expected.contains(&message)
            };
            unexpected.extend(test.lines.drain(..).filter(|line| !is_expected(line)));
        }
        unexpected
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let unexpected = self.take_unexpected();
        if !thread::panicking() {
            let unexpected: Vec<_> = unexpected.iter().map(Value::to_string).collect();
            assert!(unexpected.is_empty(), "the test did not announce:\n{}", unexpected.join("\n"));
        }
    }
}

/// Takes the lines of servers inside this process.
struct Sink;

/// One write is one line: that is how `tracing_subscriber` writes.
impl Write for Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let (Ok(handle), Ok(entry)) = (Handle::try_current(), serde_json::from_slice(line)) {
            record(handle.id(), &entry);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_line_that_its_test_has_not_announced_fails_it() {
        let ends_well = |watch: Watch| catch_unwind(AssertUnwindSafe(|| drop(watch))).is_ok();
        expect(&["caused"]);
        let watch = Watch::start();
        tracing::info!("said");
        tokio::spawn(async { tracing::error!("caused") }).await.unwrap();
        assert!(ends_well(watch));
        for cause in [|| tracing::warn!("broken"), || tracing::error!("broken")] {
            let watch = Watch::start();
            // In a task of any thread, as a server does it.
            tokio::spawn(async move { cause() }).await.unwrap();
            assert!(!ends_well(watch));
        }
        assert!(ends_well(Watch::start()), "a line is told of once");
    }
}
