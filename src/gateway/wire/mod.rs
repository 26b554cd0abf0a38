//! Bytes to and from one connection: what the library is not left to do.

mod flow;
mod outbound;
mod payload;
mod polling;
mod readers;
mod stream;
mod upgrade;

pub mod connection;
pub mod connections;
pub mod frames;
pub mod metrics;
pub mod pages;
pub mod refusal;
pub mod response;
pub mod transport;
