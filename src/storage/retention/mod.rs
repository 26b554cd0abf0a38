//! Removing what is no longer kept, in small steps beside the writer.

mod history;
mod notifications;

pub use history::Retention;
pub use notifications::Expiry;
