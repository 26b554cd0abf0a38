//! Reads: single locations, pages of lists and history, members, shares, notifications.

pub mod access;
pub mod accounts;
pub mod history;
pub mod listing;
pub mod locations;
pub mod members;
pub mod notifications;
pub mod pieces;
pub mod search;
pub mod shares;
pub mod total_cache;
pub mod totals;
