//! Changes: one writer, one transaction engine, one publisher.
//!
//! [`writer`] takes changes and puts them into a lane; the [`task`] of the lane takes batches out of its [`queue`],
//! has [`batch`] carry them out in a [`transaction`], commits that with a [`proof`] and [`publish`]es it. What each
//! act does stands in a file of its kind; who is told of it besides the rooms, in [`audience`].

mod act;
mod audience;
mod batch;
mod lanes;
mod locations;
mod locked;
mod members;
mod notifications;
mod proof;
mod publish;
mod queue;
mod rights;
mod shares;
mod task;
mod transaction;
mod versions;
mod writer;

pub use act::{NewShare, ShareUses};
pub use writer::Writer;
