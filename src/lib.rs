//! georoom: a location is a room.
//!
//! A phone sends `PUT /location`, the geometry is committed to the database, and everyone in the
//! Socket.IO room named by the location's id has the new GeoJSON within milliseconds.
//!
//! The modules stand in floor order, the lowest first, and each imports only from modules above it in this list. `http`
//! and `gateway` stand side by side and do not know each other. `tests/layering.rs` holds this.
//! `docs/architecture.md` follows a change and a subscriber through them.

// A table of cases in a test has as many lines as it has cases.
#![cfg_attr(test, allow(clippy::too_many_lines))]

// TCP connections, origins, client addresses, bounded bytes: networking without locations.
pub mod net;

// The log: its format, its thread, what it may contain.
pub mod telemetry;

// Counters, gauges and histograms, and the text of a scrape.
pub mod metrics;

// Long-lived tasks that survive a panic.
pub mod supervise;

// Two threads for computations that would hold up everybody else.
pub mod heavy;

// Values and decisions: what a location is, what a body must look like, who may do what. No input, no output.
pub mod domain;

// Settings: read once, checked before anything starts.
pub mod config;

// Amounts that a caller may spend and that refill with time.
pub mod budgets;

// The database: one writer for all changes, reads, retention.
pub mod storage;

// What callers may do, the same through both doors: rights, limits, validation, events.
pub mod service;

// The Socket.IO door: connections, rooms, presence.
pub mod gateway;

// The HTTP door: routes, bodies, answers.
pub mod http;

// The server as one object: bind, connect, migrate, serve, drain.
pub mod server;
