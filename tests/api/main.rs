//! The whole server from outside: real databases, real HTTP, the real JavaScript clients.
//!
//! `make test` starts what these need; `tests/services/run cargo test` does the same for a part of them.

// A scenario is one function, and a table has as many lines as it has cases.
#![allow(clippy::too_many_lines)]

#[path = "../cases/mod.rs"]
mod cases;
mod support;

use georoom::domain::error;

mod access;
mod attacks;
mod bad_bodies;
mod clients;
mod crash;
mod crowd;
mod doors;
mod faults;
mod feed;
mod history;
mod hostile;
mod hostile_budgets;
mod hostile_lists;
mod hostile_process;
mod hostile_wire;
mod http;
mod limits;
mod locations;
mod members;
mod metrics;
mod mysql_limits;
mod natural_earth;
mod notifications;
mod order;
mod outages;
mod postman;
mod presence;
mod process;
mod recovery;
mod rfc7946;
mod rights;
mod rooms;
mod shares;
mod spatial;
mod stalls;
mod tokens;
mod withdrawal;
mod writers;
