//! What `make bench` is made of; see README.md.

pub mod load;
pub mod machine;
pub mod mysql;
pub mod servers;
pub mod table;
pub mod wire;
