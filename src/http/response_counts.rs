//! Counters of answers by the class of their status, and of refusals by their code.
//!
//! The service cannot count them, because only this door knows the status.

use http::Response;

use crate::{
    domain::error::Code,
    metrics::{Counter, Metrics},
    service::refusals::Refusals,
};

const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

/// The counters of this door.
#[derive(Debug)]
pub struct ResponseCounts {
    responses: [Counter; 4],
    refusals: Refusals,
}

impl ResponseCounts {
    /// Registers the counters.
    pub fn start(metrics: &Metrics) -> Self {
        let responses = metrics.counters("http_responses", "Answers of the HTTP API, by class of status");
        Self {
            responses: CLASSES.map(|class| responses.of([("class", class)])),
            refusals: Refusals::at("http", metrics),
        }
    }

    /// Counts an answer. A refusal has its code among the extensions.
    pub fn record<B>(&self, response: &Response<B>) {
        let class = usize::from(response.status().as_u16() / 100).checked_sub(2);
        if let Some(responses) = class.and_then(|class| self.responses.get(class)) {
            responses.inc();
        }
        if let Some(code) = response.extensions().get::<Code>() {
            self.refusals.count(*code);
        }
    }
}
