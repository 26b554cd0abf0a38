//! The log: one line for each event, with fields instead of prose, as text for people or as JSON for machines.
//!
//! Logging never blocks (see `telemetry/lines.rs`). Text that a caller supplies is cut before it gets into a line
//! ([`cut`]). This module knows no metrics; it only tells how many lines were dropped.

mod lines;

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    fs::File,
    io::{self, IsTerminal, Write},
    os::fd::AsFd,
    panic::{self, AssertUnwindSafe, PanicHookInfo},
    sync::{OnceLock, mpsc},
    thread,
    time::Duration,
};

use tracing::{Level, Metadata, error, field::display};
use tracing_subscriber::{EnvFilter, filter::filter_fn, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use lines::Lines;

/// Libraries whose debug lines have what goes over the wire, with tokens and whole ids of sockets in it.
const VERBOSE_LIBRARIES: [&str; 4] = ["tungstenite", "tokio_tungstenite", "engineioxide", "socketioxide"];
/// Characters of one text from a caller in a line.
const MAX_TEXT_CHARS: usize = 200;
/// Bounds the waiting for the log, and for standard error, at the end of the process.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(200);

/// The log of this process. Set when it is started.
static LINES: OnceLock<Lines> = OnceLock::new();

/// The format of lines.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// A JSON object in each line.
    Json,
}

/// Checks a filter of the log.
///
/// # Errors
/// The reason why it is none.
pub fn check_filter(filter: &str) -> Result<(), String> {
    EnvFilter::try_new(filter).map(drop).map_err(|e| e.to_string())
}

/// Starts logging to standard output, for the whole process. Panics are logged too, instead of being printed.
///
/// # Errors
/// If the thread that writes cannot be started, or standard output is closed.
pub fn start(format: LogFormat, filter: &str) -> io::Result<()> {
    let lines = Lines::default();
    // A descriptor of its own: Rust's lock on standard output would be held while it is stuck.
    let out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let writing = lines.clone();
    thread::Builder::new().name("log".to_owned()).spawn(move || {
        // A panic here must not end the log.
        while panic::catch_unwind(AssertUnwindSafe(|| writing.write_to(&out))).is_err() {}
    })?;
    let registry = tracing_subscriber::registry().with(EnvFilter::new(filter)).with(filter_fn(is_discreet));
    let layer = fmt::layer().log_internal_errors(false).with_writer(lines.clone());
    match format {
        LogFormat::Text => registry.with(layer.with_ansi(io::stdout().is_terminal())).init(),
        LogFormat::Json => registry.with(layer.json().flatten_event(true).with_current_span(false)).init(),
    }
    let _ = LINES.set(lines);
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Writes text for people among the lines of the log, if there is one.
pub fn print(text: &str) {
    if let Some(lines) = LINES.get() {
        lines.push(text.as_bytes());
    }
}

/// Number of lines dropped so far because they came faster than they were read.
pub fn dropped_lines() -> u64 {
    LINES.get().map_or(0, Lines::dropped)
}

/// Writes the lines that still wait, at the end of the process, unless nobody reads them.
pub fn finish() {
    if let Some(lines) = LINES.get() {
        lines.finish(FLUSH_TIMEOUT);
    }
}

/// Prints the reason for a bad end to standard error. Returns even if nobody reads that.
pub fn print_error(reason: String) {
    let (done, is_done) = mpsc::channel();
    thread::spawn(move || {
        let _ = writeln!(io::stderr(), "{reason}");
        let _ = done.send(());
    });
    let _ = is_done.recv_timeout(FLUSH_TIMEOUT);
}

/// Cuts a text that a caller has supplied to 200 characters, so that no line can fill the log.
pub fn cut(text: &str) -> &str {
    match text.char_indices().nth(MAX_TEXT_CHARS) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    // Captures nothing unless RUST_BACKTRACE asks for it.
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| display(&backtrace));
    error!(
        cause = cut(panic.payload_as_str().unwrap_or("a value that is no text")),
        place = panic.location().map(display),
        thread = thread.name(),
        backtrace,
        "panic"
    );
}

/// Can a line not have secrets of callers in it? Lines that may are left out whatever the filter says.
fn is_discreet(line: &Metadata<'_>) -> bool {
    let library = line.target().split("::").next().unwrap_or_default();
    *line.level() <= Level::INFO || !VERBOSE_LIBRARIES.contains(&library)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters() {
        for (text, cut_to) in [(String::new(), 0), ("é".repeat(200), 400), ("é".repeat(201), 400)] {
            assert_eq!(cut(&text).len(), cut_to);
        }
    }
}
