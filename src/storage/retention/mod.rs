//! Removing what is no longer kept: old versions of locations, old notifications and their texts.
//!
//! [`sweeper`] is the task that does it, in small steps over another connection than the writer's, so that the writer
//! hardly notices. Its two subjects, [`history`] and [`notifications`], decide which rows go.

mod history;
mod notifications;
mod sweeper;

pub use history::HistorySweeper;
pub use notifications::NotificationSweeper;
