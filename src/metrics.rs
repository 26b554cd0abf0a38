//! What is counted for operators, in the text format of Prometheus. Counting is an atomic addition.

pub use prometheus_client::metrics::counter::Counter;
use prometheus_client::{encoding::text, metrics::family::Family, registry::Registry};

/// The content type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Label = [(&'static str, &'static str); 1];

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    limited: Family<Label, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("georoom");
        let limited = Family::default();
        registry.register("limited", "What was refused because of a limit", limited.clone());
        Self { registry, limited }
    }
}

impl Metrics {
    /// Counts what is refused because of a limit; there from the start, at 0.
    pub fn limited(&self, limit: &'static str) -> Counter {
        self.limited.get_or_create_owned(&[("limit", limit)])
    }

    /// As a scrape reads it.
    pub fn text(&self) -> String {
        let mut text = String::new();
        text::encode(&mut text, &self.registry).expect("a String takes everything");
        text
    }
}
