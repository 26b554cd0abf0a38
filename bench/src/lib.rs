//! The parts of `make bench`; see README.md.

pub mod load;
pub mod machine;
pub mod mysql;
pub mod servers;
pub mod table;
pub mod wire;
