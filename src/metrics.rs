//! What is counted for operators, in the text format of OpenMetrics, which Prometheus reads. Who counts says
//! under which name.
//!
//! A counter or gauge with all its labels is made once, at the start; counting is then one atomic addition,
//! without a lock and without looking anything up. A histogram has a lock of its own, for some 20 ns, which nobody
//! else wants: it is told once a commit, and once a PUT. What can be looked at, such as the length of a queue, is
//! not counted: a scrape looks.

#[cfg(target_os = "linux")]
mod process;

use std::{fmt, sync::atomic::Ordering, time::Duration};

use parking_lot::Mutex;
pub use prometheus_client::metrics::{counter::Counter, gauge::Gauge, histogram::Histogram};
use prometheus_client::{
    encoding::text,
    metrics::family::Family,
    registry::{Metric, Registry, Unit},
};

/// The content type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Where the times of commits and deliveries fall, in seconds.
const SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// A label and its value.
pub type Label = (&'static str, &'static str);

type Look = Box<dyn Fn() + Send + Sync>;

/// Everything that is counted.
pub struct Metrics {
    /// Written at the start, by whoever counts.
    registry: Mutex<Registry>,
    /// Of what is not counted; written at the start.
    looks: Mutex<Vec<Look>>,
    queue_length: Gauges,
    queue_limit: Gauges,
    refusals: Counters<2>,
    limited: Counters<1>,
}

/// Counters of one name, apart by their labels.
#[derive(Clone, Debug, Default)]
pub struct Counters<const N: usize>(Family<[Label; N], Counter>);

/// Gauges of one name, apart by a label.
#[derive(Clone, Debug, Default)]
pub struct Gauges(Family<[Label; 1], Gauge>);

/// How long something took, each time.
#[derive(Clone, Debug)]
pub struct Seconds(Histogram);

impl Default for Metrics {
    fn default() -> Self {
        let (queue_length, queue_limit) = (Gauges::default(), Gauges::default());
        let mut registry = Registry::default();
        #[cfg(target_os = "linux")]
        registry.register_collector(Box::new(process::Process));
        let (registry, looks) = (Mutex::new(registry), Mutex::default());
        let (refusals, limited) = (Counters::default(), Counters::default());
        let metrics = Self { registry, looks, queue_length, queue_limit, refusals, limited };
        let help = "Refused requests, events and handshakes, by door and error code";
        metrics.register("refusals", help, None, metrics.refusals.0.clone());
        metrics.register("limited", "Refusals because of a limit, by limit", None, metrics.limited.0.clone());
        metrics.gauges("build_info", "Version of georoom").of("version", env!("CARGO_PKG_VERSION")).set(1);
        let help = "Entries that wait in a queue or are under way";
        metrics.register("queue_length", help, None, metrics.queue_length.0.clone());
        metrics.register("queue_limit", "Bound of a queue", None, metrics.queue_limit.0.clone());
        metrics
    }
}

impl Metrics {
    fn register(&self, name: &str, help: &str, unit: Option<Unit>, metric: impl Metric) {
        let (mut registry, name) = (self.registry.lock(), format!("georoom_{name}"));
        match unit {
            Some(unit) => registry.register_with_unit(name, help, unit, metric),
            None => registry.register(name, help, metric),
        }
    }

    /// A counter, whose name gets `_total`.
    pub fn counter(&self, name: &str, help: &str) -> Counter {
        let counter = Counter::default();
        self.register(name, help, None, counter.clone());
        counter
    }

    /// The same with labels.
    pub fn counters<const N: usize>(&self, name: &str, help: &str) -> Counters<N> {
        let counters = Counters::default();
        self.register(name, help, None, counters.0.clone());
        counters
    }

    /// A counter of what a door refuses with a code.
    pub fn refused(&self, door: &'static str, code: &'static str) -> Counter {
        self.refusals.of([("door", door), ("code", code)])
    }

    /// A counter of what is refused because of a limit.
    pub fn limited(&self, limit: &'static str) -> Counter {
        self.limited.of([("limit", limit)])
    }

    /// A gauge, to be set.
    pub fn gauge(&self, name: &str, help: &str) -> Gauge {
        let gauge = Gauge::default();
        self.register(name, help, None, gauge.clone());
        gauge
    }

    /// The same with a label.
    pub fn gauges(&self, name: &str, help: &str) -> Gauges {
        let gauges = Gauges::default();
        self.register(name, help, None, gauges.0.clone());
        gauges
    }

    /// A gauge that a scrape looks up.
    pub fn watch(&self, name: &str, help: &str, look: impl Fn() -> usize + Send + Sync + 'static) {
        self.set_by(self.gauge(name, help), look);
    }

    /// The same in bytes, which its name gets at the end.
    pub fn watch_bytes(&self, name: &str, help: &str, look: impl Fn() -> usize + Send + Sync + 'static) {
        let gauge = Gauge::default();
        self.register(name, help, Some(Unit::Bytes), gauge.clone());
        self.set_by(gauge, look);
    }

    /// A queue that a scrape looks at, and how much it takes.
    pub fn queue(
        &self,
        name: &'static str,
        limit: usize,
        length: impl Fn() -> usize + Send + Sync + 'static,
    ) {
        self.queue_limit.of("queue", name).set(limit as i64);
        self.set_by(self.queue_length.of("queue", name), length);
    }

    /// A counter that somebody else counts; a scrape looks it up. Its name gets `_total`.
    pub fn watch_counter(&self, name: &str, help: &str, look: impl Fn() -> u64 + Send + Sync + 'static) {
        let counter = self.counter(name, help);
        self.looks.lock().push(Box::new(move || counter.inner().store(look(), Ordering::Relaxed)));
    }

    fn set_by(&self, gauge: Gauge, look: impl Fn() -> usize + Send + Sync + 'static) {
        self.looks.lock().push(Box::new(move || _ = gauge.set(look() as i64)));
    }

    /// A histogram of times; its name gets `_seconds`.
    pub fn seconds(&self, name: &str, help: &str) -> Seconds {
        let seconds = Histogram::new(SECONDS);
        self.register(name, help, Some(Unit::Seconds), seconds.clone());
        Seconds(seconds)
    }

    /// A histogram of numbers.
    pub fn histogram(&self, name: &str, help: &str, bounds: impl IntoIterator<Item = f64>) -> Histogram {
        let histogram = Histogram::new(bounds);
        self.register(name, help, None, histogram.clone());
        histogram
    }

    /// As a scrape reads it.
    pub fn text(&self) -> String {
        self.looks.lock().iter().for_each(|look| look());
        let mut text = String::new();
        text::encode(&mut text, &self.registry.lock()).expect("a String takes everything");
        text
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl<const N: usize> Counters<N> {
    /// The one with these labels; there from now on, at 0.
    pub fn of(&self, labels: [Label; N]) -> Counter {
        self.0.get_or_create_owned(&labels)
    }
}

impl Gauges {
    /// The one with this label; there from now on, at 0.
    pub fn of(&self, label: &'static str, value: &'static str) -> Gauge {
        self.0.get_or_create_owned(&[(label, value)])
    }
}

impl Seconds {
    /// It took so long this time.
    pub fn observe(&self, time: Duration) {
        self.0.observe(time.as_secs_f64());
    }
}
