//! The rooms of this process: who is in them, and what they are sent.
//!
//! `registry.rs` has the rooms and their locks, `room/` decides for one room. On the registry stand entering and
//! leaving (`join.rs`), sending updates (`turns.rs`), reading what a room lacks (`backfill.rs`), comparing rooms with
//! the database (`sweep.rs`), taking out members whose right has ended (`expel.rs`), announcing who is here
//! (`occupants.rs`), and mending a room after a panic (`healing.rs`).

mod backfill;
mod expel;
mod healing;
mod join;
mod live;
mod metrics;
mod occupants;
mod presence;
mod reads;
mod registry;
mod rights;
mod room;
mod sweep;
mod turns;

pub use self::{healing::Broken, presence::Leaving, registry::Rooms};
