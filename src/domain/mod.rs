//! The words of georoom as values: what a location is, what a body must look like, what a query asks.
//!
//! Pure: no tokio, no database, no HTTP, no sockets. Everything a type's constructor has checked is
//! true from there on, and no floor above checks it again.

// A name that says all has no comment.
#![allow(missing_docs)]

pub mod access;
pub mod area;
pub mod distance;
pub mod error;
pub mod event;
pub mod geometry;
pub mod id;
pub mod json;
pub mod location;
pub mod notification;
pub mod presence;
pub mod properties;
pub mod share;
pub mod time;
pub mod token;

#[cfg(test)]
#[path = "../../tests/cases/mod.rs"]
mod cases;
