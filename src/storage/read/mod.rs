//! Reading: single locations, pages of lists and of history, members, shares, notifications.
//!
//! Every read is tried again and has its time ([`super::pool`]).

mod entries;
pub mod filter;
pub mod history;
pub mod listing;
pub mod locations;
pub mod members;
pub mod notifications;
mod pieces;
mod search;
pub mod shares;
pub mod total_cache;
mod totals;
mod visible;
