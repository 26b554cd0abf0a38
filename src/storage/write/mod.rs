//! Changes: the writer with its queue, changes of members and shares, and what is stored of both for others.

pub mod accounts;
pub mod audience;
pub mod batch;
pub mod counts;
pub mod grant;
pub mod lanes;
pub mod members;
pub mod notices;
pub mod queue;
pub mod shares;
pub mod writer;
