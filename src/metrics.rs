//! The registry of metrics, in the text format of OpenMetrics, which Prometheus reads. Each module registers its own.
//!
//! A counter or gauge with all its labels is made once, at the start. Counting is then one atomic addition, without a
//! lock and without a look-up. A histogram has a lock of its own, held for some 20 ns: it is used once for each commit
//! and once for each PUT. A number that is there anyway, such as the length of a queue, is read when a scrape comes.

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

/// The upper bounds of the buckets for times, in seconds.
const SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// A label and its value.
pub type Label = (&'static str, &'static str);

type Refresh = Box<dyn Fn() + Send + Sync>;

/// The registry of all metrics.
pub struct Metrics {
    /// Modules write it at the start; a scrape reads it.
    registry: Mutex<Registry>,
    /// Functions that set the metrics that are read when a scrape comes. Modules add them at the start.
    refreshes: Mutex<Vec<Refresh>>,
    queue_length: Gauges,
    queue_limit: Gauges,
    refusals: Counters<2>,
    limited: Counters<1>,
}

/// Counters with one name and different labels.
#[derive(Clone, Debug, Default)]
pub struct Counters<const N: usize>(Family<[Label; N], Counter>);

/// Gauges with one name and different values of a label.
#[derive(Clone, Debug, Default)]
pub struct Gauges(Family<[Label; 1], Gauge>);

/// A histogram of times.
#[derive(Clone, Debug)]
pub struct Seconds(Histogram);

impl Default for Metrics {
    fn default() -> Self {
        let (queue_length, queue_limit) = (Gauges::default(), Gauges::default());
        let mut registry = Registry::default();
        #[cfg(target_os = "linux")]
        registry.register_collector(Box::new(process::Process));
        let (registry, refreshes) = (Mutex::new(registry), Mutex::default());
        let (refusals, limited) = (Counters::default(), Counters::default());
        let metrics = Self { registry, refreshes, queue_length, queue_limit, refusals, limited };
        let help = "Refused requests, events and handshakes, by door and error code";
        metrics.add("refusals", help, None, metrics.refusals.0.clone());
        metrics.add("limited", "Refusals because of a limit, by limit", None, metrics.limited.0.clone());
        metrics.gauges("build_info", "Version of georoom").of("version", env!("CARGO_PKG_VERSION")).set(1);
        let help = "Entries that wait in a queue or are under way";
        metrics.add("queue_length", help, None, metrics.queue_length.0.clone());
        metrics.add("queue_limit", "Bound of a queue", None, metrics.queue_limit.0.clone());
        metrics
    }
}

impl Metrics {
    fn register<M: Metric + Clone + Default>(&self, name: &str, help: &str, unit: Option<Unit>) -> M {
        let metric = M::default();
        self.add(name, help, unit, metric.clone());
        metric
    }

    fn add(&self, name: &str, help: &str, unit: Option<Unit>, metric: impl Metric) {
        let (mut registry, name) = (self.registry.lock(), format!("georoom_{name}"));
        match unit {
            Some(unit) => registry.register_with_unit(name, help, unit, metric),
            None => registry.register(name, help, metric),
        }
    }

    /// Registers a counter. Its name gets `_total`.
    pub fn counter(&self, name: &str, help: &str) -> Counter {
        self.register(name, help, None)
    }

    /// Registers counters with labels.
    pub fn counters<const N: usize>(&self, name: &str, help: &str) -> Counters<N> {
        Counters(self.register(name, help, None))
    }

    /// Returns the counter of refusals by a door with an error code.
    pub fn refused(&self, door: &'static str, code: &'static str) -> Counter {
        self.refusals.of([("door", door), ("code", code)])
    }

    /// Returns the counter of refusals because of a limit.
    pub fn limited(&self, limit: &'static str) -> Counter {
        self.limited.of([("limit", limit)])
    }

    /// Registers a gauge.
    pub fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.register(name, help, None)
    }

    /// Registers gauges with a label.
    pub fn gauges(&self, name: &str, help: &str) -> Gauges {
        Gauges(self.register(name, help, None))
    }

    /// Registers a gauge that is read when a scrape comes.
    pub fn watch(&self, name: &str, help: &str, read: impl Fn() -> usize + Send + Sync + 'static) {
        self.refresh(self.gauge(name, help), read);
    }

    /// Registers a gauge of bytes that is read when a scrape comes. Its name gets `_bytes`.
    pub fn watch_bytes(&self, name: &str, help: &str, read: impl Fn() -> usize + Send + Sync + 'static) {
        self.refresh(self.register(name, help, Some(Unit::Bytes)), read);
    }

    /// Registers a queue: its limit, and its length, which is read when a scrape comes.
    pub fn queue(
        &self,
        name: &'static str,
        limit: usize,
        length: impl Fn() -> usize + Send + Sync + 'static,
    ) {
        self.queue_limit.of("queue", name).set(limit as i64);
        self.refresh(self.queue_length.of("queue", name), length);
    }

    /// Registers a counter that is kept elsewhere and read when a scrape comes. Its name gets `_total`.
    pub fn watch_counter(&self, name: &str, help: &str, read: impl Fn() -> u64 + Send + Sync + 'static) {
        let counter = self.counter(name, help);
        self.refreshes.lock().push(Box::new(move || counter.inner().store(read(), Ordering::Relaxed)));
    }

    fn refresh(&self, gauge: Gauge, read: impl Fn() -> usize + Send + Sync + 'static) {
        self.refreshes.lock().push(Box::new(move || _ = gauge.set(read() as i64)));
    }

    /// Registers a histogram of times. Its name gets `_seconds`.
    pub fn seconds(&self, name: &str, help: &str) -> Seconds {
        let seconds = Histogram::new(SECONDS);
        self.add(name, help, Some(Unit::Seconds), seconds.clone());
        Seconds(seconds)
    }

    /// Registers a histogram of numbers.
    pub fn histogram(&self, name: &str, help: &str, bounds: impl IntoIterator<Item = f64>) -> Histogram {
        let histogram = Histogram::new(bounds);
        self.add(name, help, None, histogram.clone());
        histogram
    }

    /// Writes all metrics as a scrape reads them.
    pub fn text(&self) -> String {
        self.refreshes.lock().iter().for_each(|refresh| refresh());
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
    /// Returns the counter with these labels. It is exposed from now on, beginning at 0.
    pub fn of(&self, labels: [Label; N]) -> Counter {
        self.0.get_or_create_owned(&labels)
    }
}

impl Gauges {
    /// Returns the gauge with this label. It is exposed from now on, beginning at 0.
    pub fn of(&self, label: &'static str, value: &'static str) -> Gauge {
        self.0.get_or_create_owned(&[(label, value)])
    }
}

impl Seconds {
    /// Adds one time.
    pub fn observe(&self, time: Duration) {
        self.0.observe(time.as_secs_f64());
    }
}
