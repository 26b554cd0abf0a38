//! What the writer counts, and how much waits in a channel.

use tokio::sync::mpsc::Sender;

use super::batch::{Act, Outcome};
use crate::metrics::{Counter, Histogram, Metrics, Seconds};

/// Commits, and what was in them.
#[derive(Debug)]
pub struct Counts {
    puts: Counter,
    commits: Counter,
    rows: Histogram,
    /// How long those took that were confirmed.
    pub commit: Seconds,
}

impl Counts {
    /// Nothing yet.
    pub fn start(metrics: &Metrics) -> Self {
        Self {
            puts: metrics.counter("puts", "PUTs that were committed"),
            commits: metrics.counter("commits", "Transactions that changed locations"),
            commit: metrics.seconds("commit_duration", "From the beginning of a transaction to its commit"),
            rows: metrics.histogram(
                "commit_rows",
                "Changes to locations that were done by one commit",
                (0..10).map(|n| f64::from(1 << n)),
            ),
        }
    }

    /// A transaction was committed.
    pub fn committed(&self, acts: &[Act], outcomes: &[Outcome]) {
        let done = acts.iter().zip(outcomes).filter(|(_, outcome)| outcome.is_ok());
        let (mut rows, mut puts) = (0_u32, 0);
        for (act, _) in done {
            rows += 1;
            puts += u64::from(matches!(act, Act::Update(_)));
        }
        self.puts.inc_by(puts);
        // All may have been refused.
        if rows > 0 {
            self.commits.inc();
            self.rows.observe(rows.into());
        }
    }
}

/// A channel that a scrape looks at.
pub fn watch_channel<T: Send + 'static>(metrics: &Metrics, name: &'static str, sender: &Sender<T>) {
    let sender = sender.clone();
    metrics.queue(name, sender.max_capacity(), move || sender.max_capacity() - sender.capacity());
}
