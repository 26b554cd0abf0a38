//! The log: one line an event, fields not prose, as text for people or JSON for machines.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Is this a filter?
///
/// # Errors
/// Why not.
pub fn check_filter(filter: &str) -> Result<(), String> {
    EnvFilter::try_new(filter).map(drop).map_err(|e| e.to_string())
}

/// Starts logging to standard output, for the whole process.
pub fn start(format: LogFormat, filter: &str) {
    let registry = tracing_subscriber::registry().with(EnvFilter::new(filter));
    match format {
        LogFormat::Text => registry.with(layer().with_ansi(io::stdout().is_terminal())).init(),
        LogFormat::Json => registry.with(layer().json().flatten_event(true).with_current_span(false)).init(),
    }
}

/// A line that cannot be written is lost, and nothing else: the default writes of it to standard error, and
/// panics where that is full too.
fn layer<S>() -> fmt::Layer<S> {
    fmt::layer().log_internal_errors(false)
}
