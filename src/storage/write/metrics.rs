//! Metrics of the writer.

use super::act::{Act, Done, Outcome};
use crate::metrics::{Counter, Histogram, Metrics, Seconds};

/// Commits, and what was in them.
#[derive(Debug)]
pub struct CommitMetrics {
    puts: Counter,
    commits: Counter,
    rows: Histogram,
    /// The duration of transactions whose COMMIT was confirmed.
    pub duration: Seconds,
}

impl CommitMetrics {
    /// Registers the metrics.
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            puts: metrics.counter("puts", "Committed PUTs"),
            commits: metrics.counter("commits", "Transactions that changed locations"),
            duration: metrics
                .seconds("commit_duration", "Time from the beginning of a transaction to its commit"),
            rows: metrics.histogram(
                "commit_rows",
                "Changes to locations in one commit",
                (0..10).map(|n| f64::from(1 << n)),
            ),
        }
    }

    /// Counts the changes of locations of a committed transaction.
    pub fn record_committed(&self, acts: &[Act], outcomes: &[Outcome]) {
        let changed = acts.iter().zip(outcomes).filter(|(_, is)| matches!(is, Ok(Done::Location(_))));
        let (mut rows, mut puts) = (0_u32, 0);
        for (act, _) in changed {
            rows += 1;
            puts += u64::from(matches!(act, Act::Update(_)));
        }
        self.puts.inc_by(puts);
        // All may have been refused, or have changed something else.
        if rows > 0 {
            self.commits.inc();
            self.rows.observe(rows.into());
        }
    }
}
