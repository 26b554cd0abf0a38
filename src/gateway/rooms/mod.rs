//! The rooms of this process: who is in them, and what they are sent.
//!
//! `registry.rs` has the rooms and their locks, `room/` decides for one room. On the registry stand entering and
//! leaving (`join.rs`), sending and reading versions (`versions.rs`), taking out members whose right has ended
//! (`expel.rs`), announcing who is here (`occupants.rs`), and recovery (`healing.rs`).

mod expel;
mod healing;
mod join;
mod occupants;
mod presence;
mod registry;
mod rights;
mod room;
mod versions;

pub use self::{presence::Leaving, registry::Rooms};
