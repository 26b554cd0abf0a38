//! The tasks that the server depends on. A panic in one of them is counted, and the task is started again.
//!
//! A task that cannot go on makes the process unhealthy: it fails again and again, or what it reads from or writes to
//! is gone. Then [`Supervisor::failed`] resolves, the server stops and the process ends with an error, so that it is
//! started again. The panic hook (`telemetry.rs`) logs each panic once.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep},
};
use tracing::{error, warn};

use crate::metrics::{Counter, Counters, Metrics};

/// Panics of a task within [`WINDOW`] after which it is not started again.
const MAX_PANICS: usize = 5;
const WINDOW: Duration = Duration::from_secs(10);
/// The pause before a task is started again; it doubles with each panic within [`WINDOW`].
const BACKOFF: Duration = Duration::from_millis(50);

/// Watches the tasks of one server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Supervisor(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    panics: Counters<1>,
    /// The name of the first task that could not go on. Tasks write it, the server and health checks read it.
    failed: watch::Sender<Option<&'static str>>,
    /// Whether the server is stopping. Then tasks may end, because what they serve is gone.
    is_stopping: AtomicBool,
}

impl Supervisor {
    /// Makes a supervisor without tasks.
    pub fn start(metrics: &Metrics) -> Self {
        let panics = metrics.counters("task_panics", "Caught panics, by task");
        let (failed, _) = watch::channel(None);
        Self(Arc::new(Shared { panics, failed, is_stopping: AtomicBool::new(false) }))
    }

    /// Makes a task of this name, to be run by one of its methods. Its counter is exposed from now on.
    pub fn task(&self, name: &'static str) -> Task {
        Task { name, panics: self.0.panics.of([("task", name)]), supervisor: self.clone() }
    }

    /// Says that the server is stopping: from now on it is no failure if a task ends.
    pub fn stop(&self) {
        self.0.is_stopping.store(true, Ordering::Release);
    }

    /// Returns the name of the task that could not go on, if there is one.
    pub fn failure(&self) -> Option<&'static str> {
        *self.0.failed.borrow()
    }

    /// Waits until a task cannot go on, and returns its name.
    pub async fn failed(&self) -> &'static str {
        let mut failed = self.0.failed.subscribe();
        loop {
            if let Some(name) = *failed.borrow_and_update() {
                return name;
            }
            // There is no error, because this supervisor has the sender.
            let _ = failed.changed().await;
        }
    }
}

/// A task that the server depends on. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Task {
    name: &'static str,
    panics: Counter,
    supervisor: Supervisor,
}

impl Task {
    /// Runs a part of the task's work. Returns `None` if it panicked, which is counted; the task goes on with the next
    /// part.
    pub fn catch<T>(&self, part: impl FnOnce() -> T) -> Option<T> {
        catch_unwind(AssertUnwindSafe(part)).inspect_err(|_| _ = self.panics.inc()).ok()
    }

    /// Runs a part of the task's work that waits, as [`Self::catch`] does.
    pub async fn catch_async<T>(&self, part: impl Future<Output = T>) -> Option<T> {
        AssertUnwindSafe(part).catch_unwind().await.inspect_err(|_| _ = self.panics.inc()).ok()
    }

    /// Makes the process unhealthy because the task cannot go on, unless the server is stopping anyway.
    pub fn fail(&self, why: &'static str) {
        if self.supervisor.0.is_stopping.load(Ordering::Acquire) {
            return;
        }
        let is_first = self.supervisor.0.failed.send_if_modified(|failed| {
            let is_first = failed.is_none();
            failed.get_or_insert(self.name);
            is_first
        });
        if is_first {
            error!(task = self.name, why, "a task cannot go on; the process ends and has to be restarted");
        }
    }

    /// Runs the task until it ends by itself. After a panic it is started again with the same `state`. Anything else
    /// that it needs it has to read anew.
    pub fn spawn<S: Send + 'static>(
        self,
        mut state: S,
        mut run: impl for<'a> FnMut(&'a mut S) -> BoxFuture<'a, ()> + Send + 'static,
    ) -> JoinHandle<()> {
        tokio::spawn(async move {
            let mut restarts = Restarts::default();
            while self.catch_async(async { run(&mut state).await }).await.is_none() {
                let Some(pause) = restarts.after_panic(Instant::now()) else {
                    self.fail("it panics again and again");
                    return;
                };
                warn!(task = self.name, "a task is started again after a panic");
                sleep(pause).await;
            }
        })
    }

    /// Runs a task that cannot be started again and must not end before the server stops.
    pub fn spawn_once(self, run: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        tokio::spawn(async move {
            match self.catch_async(run).await {
                Some(()) => self.fail("it has ended"),
                None => self.fail("it panicked"),
            }
        })
    }
}

/// Shows in the metrics how much waits in a channel to a task.
pub fn watch_channel<T: Send + 'static>(metrics: &Metrics, name: &'static str, sender: &mpsc::Sender<T>) {
    let sender = sender.clone();
    metrics.queue(name, sender.max_capacity(), move || sender.max_capacity() - sender.capacity());
}

/// The times of a task's panics within [`WINDOW`].
#[derive(Default)]
struct Restarts(VecDeque<Instant>);

impl Restarts {
    /// Returns the pause before the task is started again, or `None` if it must not be.
    fn after_panic(&mut self, now: Instant) -> Option<Duration> {
        self.0.retain(|at| now - *at < WINDOW);
        self.0.push_back(now);
        let before = self.0.len() - 1;
        (self.0.len() < MAX_PANICS).then(|| BACKOFF * (1 << before))
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    fn panics(metrics: &Metrics) -> String {
        let text = metrics.text();
        let counted = text.lines().find(|line| line.starts_with("georoom_task_panics_total{")).unwrap();
        counted.rsplit(' ').next().unwrap().to_owned()
    }

    #[tokio::test]
    async fn a_task_that_panics_goes_on_with_its_state() {
        let metrics = Metrics::default();
        let supervisor = Supervisor::start(&metrics);
        let (numbers, queue) = mpsc::channel(8);
        let (done, mut seen) = mpsc::unbounded_channel();
        let task = supervisor.task("test").spawn((queue, done), |(queue, done)| {
            async move {
                while let Some(number) = queue.recv().await {
                    assert!(number != 2, "a number it cannot take");
                    done.send(number).unwrap();
                }
            }
            .boxed()
        });
        for number in 1..=3 {
            numbers.send(number).await.unwrap();
        }
        assert_eq!((seen.recv().await, seen.recv().await), (Some(1), Some(3)));
        drop(numbers);
        task.await.unwrap();
        assert_eq!((panics(&metrics).as_str(), supervisor.failure()), ("1", None));
    }

    #[tokio::test]
    async fn a_task_that_panics_again_and_again_is_a_failure() {
        let metrics = Metrics::default();
        let supervisor = Supervisor::start(&metrics);
        supervisor.task("test").spawn((), |()| async { panic!("always") }.boxed());
        assert_eq!(supervisor.failed().await, "test");
        assert_eq!((panics(&metrics).as_str(), supervisor.failure()), ("5", Some("test")));
    }

    #[test]
    fn a_panic_now_and_then_is_no_failure() {
        let (mut restarts, began) = (Restarts::default(), Instant::now());
        for number in 0..20 {
            assert_eq!(restarts.after_panic(began + number * WINDOW), Some(BACKOFF));
        }
        let pauses: Vec<_> = (0..5).map(|_| restarts.after_panic(began + 20 * WINDOW)).collect();
        let milliseconds = |ms| Some(Duration::from_millis(ms));
        assert_eq!(pauses, [milliseconds(50), milliseconds(100), milliseconds(200), milliseconds(400), None]);
    }

    #[tokio::test]
    async fn a_part_that_panics_is_counted_and_the_rest_goes_on() {
        let metrics = Metrics::default();
        let supervisor = Supervisor::start(&metrics);
        let task = supervisor.task("test");
        assert_eq!(task.catch(|| 7), Some(7));
        assert_eq!(task.catch(|| -> u8 { panic!("in a part") }), None);
        assert_eq!(task.catch_async(async { 7 }).await, Some(7));
        assert_eq!(task.catch_async(async { panic!("in a part") as u8 }).await, None);
        assert_eq!((panics(&metrics).as_str(), supervisor.failure()), ("2", None));
    }

    #[tokio::test]
    async fn a_task_that_ends_is_a_failure_only_before_the_stop() {
        let supervisor = Supervisor::start(&Metrics::default());
        supervisor.task("first").spawn_once(async { panic!("gone") }).await.unwrap();
        assert_eq!(supervisor.failed().await, "first");
        let supervisor = Supervisor::start(&Metrics::default());
        supervisor.stop();
        supervisor.task("last").spawn_once(async {}).await.unwrap();
        assert_eq!(supervisor.failure(), None);
    }
}
