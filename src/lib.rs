//! georoom: a location is a room.
//!
//! A phone sends `PUT /location`, the geometry is committed to the database, and everyone in the
//! Socket.IO room named by the location's id has the new GeoJSON within milliseconds.
//!
//! The modules in floor order, each importing only what stands above it in this list; `http` and
//! `gateway` stand side by side and do not know each other. `tests/layering.rs` keeps it so.

// A table of cases in a test has as many lines as it has cases.
#![cfg_attr(test, allow(clippy::too_many_lines))]

pub mod net;

pub mod telemetry;

pub mod metrics;

pub mod supervise;

pub mod heavy;

pub mod domain;

pub mod config;

pub mod budgets;

pub mod storage;

pub mod service;

pub mod gateway;

pub mod http;

pub mod server;
