//! The log: one line an event, fields not prose, as text for people or JSON for machines.

use std::io::{self, IsTerminal};

use tracing::{Level, Metadata};
use tracing_subscriber::{EnvFilter, filter::filter_fn, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// Libraries that write down what goes over the wire, in which there are tokens and whole ids of sockets.
const TALKATIVE: [&str; 4] = ["tungstenite", "tokio_tungstenite", "engineioxide", "socketioxide"];

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
    let registry = tracing_subscriber::registry().with(EnvFilter::new(filter)).with(filter_fn(is_discreet));
    match format {
        LogFormat::Text => registry.with(layer().with_ansi(io::stdout().is_terminal())).init(),
        LogFormat::Json => registry.with(layer().json().flatten_event(true).with_current_span(false)).init(),
    }
}

/// Whatever is asked for, there is no line with what opens a door.
fn is_discreet(line: &Metadata<'_>) -> bool {
    let of = line.target().split("::").next().unwrap_or_default();
    *line.level() <= Level::INFO || !TALKATIVE.contains(&of)
}

/// A line that cannot be written is lost, and nothing else: the default writes of it to standard error, and
/// panics where that is full too.
fn layer<S>() -> fmt::Layer<S> {
    fmt::layer().log_internal_errors(false)
}
