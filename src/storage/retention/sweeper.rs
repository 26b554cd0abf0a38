//! The task that removes what is no longer kept of one subject.
//!
//! The writer reports items that may have too many rows, and they are trimmed at once. A slow sweep over all rows finds
//! those that were missed, have become too old since, or were left by a process that ended.

use std::{future::ready, time::Duration};

use futures_util::FutureExt;
use tokio::{
    sync::mpsc,
    time::{Interval, MissedTickBehavior, interval},
};
use tracing::warn;

use crate::{
    metrics::Metrics,
    storage::error::{DbResult, is_closed},
    supervise::{Supervisor, watch_channel},
};

/// Items that may wait to be trimmed. One more is forgotten: it comes again when it has more, or the sweep finds it.
const MAX_WAITING: usize = 1_024;
/// After a failure the next sweep begins so much later.
const RETRY_DELAY: Duration = Duration::from_secs(5);
/// The pause between two steps of a sweep.
pub const SWEEP_PAUSE: Duration = Duration::from_millis(10);

/// The rows that a sweeper removes.
pub trait Subject: Send + 'static {
    /// The name of the task and of its queue in metrics.
    const NAME: &'static str;
    /// The line of the log for a failure.
    const FAILURE: &'static str;
    /// Items that are trimmed together.
    const TRIMMED_TOGETHER: usize;

    /// An item that may have too many rows, or rows that are too old.
    type Item: Send + 'static;
    /// The place where a sweep goes on.
    type Position: Copy + Send;

    /// The age from which rows are not kept. `None`: any age is kept.
    fn max_age(&self) -> Option<Duration>;

    /// Begins a sweep.
    fn begin_sweep(&mut self) -> impl Future<Output = DbResult<Self::Position>> + Send;

    /// Removes rows of the next items of a sweep. Returns where it goes on, `None` at its end.
    fn sweep(
        &mut self,
        from: Self::Position,
    ) -> impl Future<Output = DbResult<Option<Self::Position>>> + Send;

    /// Removes rows of items that were reported.
    fn trim(&mut self, items: &[Self::Item]) -> impl Future<Output = DbResult<()>> + Send;
}

/// Starts the task. It ends when the last sender is dropped or the store is closed.
pub fn start<S: Subject>(subject: S, metrics: &Metrics, tasks: &Supervisor) -> mpsc::Sender<S::Item> {
    let (sender, queue) = mpsc::channel(MAX_WAITING);
    watch_channel(metrics, S::NAME, &sender);
    tasks.task(S::NAME).spawn((subject, queue), |(subject, queue)| run(subject, queue).boxed());
    sender
}

async fn run<S: Subject>(subject: &mut S, queue: &mut mpsc::Receiver<S::Item>) {
    let mut next_sweep = sweep_interval(subject.max_age());
    // `None` between two sweeps.
    let mut position = None;
    let mut items = Vec::with_capacity(S::TRIMMED_TOGETHER);
    loop {
        let done = tokio::select! {
            received = queue.recv_many(&mut items, S::TRIMMED_TOGETHER) => match received {
                0 => return,
                _ => subject.trim(&items).await.map(|()| position),
            },
            _ = next_sweep.tick(), if position.is_none() => subject.begin_sweep().await.map(Some),
            from = ready(position), if position.is_some() => match from {
                Some(from) => subject.sweep(from).await,
                None => Ok(None),
            },
        };
        items.clear();
        position = match done {
            Ok(position) => position,
            Err(error) if is_closed(&error) => return,
            Err(error) => {
                warn!(%error, "{}", S::FAILURE);
                next_sweep.reset_after(RETRY_DELAY);
                None
            }
        };
    }
}

/// Sweeps are so frequent that no row is kept for much longer than its time, and there is one every hour at least.
fn sweep_interval(max_age: Option<Duration>) -> Interval {
    let wanted = max_age.map_or(Duration::MAX, |age| age / 10);
    let mut interval = interval(wanted.clamp(Duration::from_secs(1), Duration::from_secs(3600)));
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
